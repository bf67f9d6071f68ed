"""Measuring: metrics, and the degrade-upscale-compare benchmark."""
