"""The names that users choose from, for command lines and nodes that must not load torch or av.

The modules that own the things take their names from here, and tests hold both equal.
"""

from __future__ import annotations

from .codecs import CODECS

DTYPES = ("float32", "bfloat16", "float16")
"""Arithmetic that can be asked for; "auto" beside them lets the engine choose."""

DEGRADATIONS = ("light", "consistent", "inconsistent", "clean", "web")
"""Presets of low quality, from little to much of what happens to videos."""

LATENT_DECODERS = ("wan", "tiny", "tiny-both")
"""Decoders of a large model that has both: exact, fast, and fast with the encoder fast, too."""

BUNDLED = ("oasis-tiny",)
"""Models that come with the package; the first is the default."""

DEFAULT_DETAIL = 0.75
"""Share of the vivid end where a file has one and nobody said; docs/results.md says why."""

STANDARD_SETS = ("udm10", "spmcs", "youhq40", "realvsr", "mvsr4x", "videolq", "reds4", "vid4")
"""Test sets whose published folders are known."""

ON_CHANGE = ("stop", "scale")
"""What to do where a film goes on in another size, another shape of pixels or another light."""

COMPARISONS = ("side", "split")
"""Ways to show a source and its result in one picture."""

ENGINES = ("local", "ray")
"""What does the segments of a job: this process, or workers of a cluster."""

SOFTWARE_CODECS = tuple(name for name, codec in CODECS.items() if not codec.needs)
"""Codecs that need no hardware of their own."""

SHORT_SIDES_PX = {
    "240p": 240,
    "360p": 360,
    "480p": 480,
    "720p": 720,
    "1080p": 1080,
    "1440p": 1440,
    "2160p": 2160,
    "4k": 2160,
    "4320p": 4320,
    "8k": 4320,
}
"""Sizes by name: pixels of the shorter side, whichever way up the picture is."""

BEFORE_WORK = ("start", "load", "precision", "plan", "open", "read", "shots")
"""Stages of a run in which nothing is produced: what is done by then was done by another run."""
