"""Degradations: a sharp clip in, a realistic low-quality clip and the parameters it drew out."""

from .recipe import PRESETS, DegradationError, apply_recipe, degrade, draw_recipe

__all__ = ["PRESETS", "DegradationError", "apply_recipe", "degrade", "draw_recipe"]
