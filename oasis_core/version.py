"""The version of this package, for what must not load the package's public face."""

__version__ = "0.1.0"
