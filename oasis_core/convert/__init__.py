"""Public checkpoints to oasis checkpoints: one key map per source, strict throughout."""
