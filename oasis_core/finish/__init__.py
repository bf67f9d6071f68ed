"""What happens to a picture behind the model: steadiness, grain, and where the model's work counts.

What a plan must know of it is said here, free of torch.
"""

STEADY_REACH = 7
"""Frames on each side that a steady picture depends on."""


def check_steady(steady: float) -> None:
    """Refuse what is no share.

    Raises:
        ValueError: It is none.
    """
    if not 0 <= steady <= 1:
        raise ValueError(f"steady must be between 0 and 1, got {steady}; 0 leaves it out")
