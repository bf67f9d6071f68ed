"""OASIS: one-step diffusion video super-resolution with attention specialization routing.

Axis letters used in every shape of this package: b batch, c channels, t frames, h height, w width,
n tokens, d model width, k heads. Video tensors are ``b c t h w``, float, in [0, 1].

Source: OASIS, arXiv 2509.23980.
"""

__version__ = "0.1.0"
