"""Measurements of speed, memory and segment borders, and their arithmetic, for `oasis bench`."""
