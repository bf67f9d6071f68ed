"""Measurements of speed: what `oasis bench` prints."""
