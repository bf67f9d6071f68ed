"""Degradations: a sharp clip in, a realistic low-quality clip and the parameters it drew out."""

from .applying import apply_recipe, degrade
from .recipe import PRESETS, DegradationError, draw_recipe

__all__ = ["PRESETS", "DegradationError", "apply_recipe", "degrade", "draw_recipe"]
