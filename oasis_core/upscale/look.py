"""What the result should look like, and where the time goes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, replace
from fractions import Fraction
from typing import TYPE_CHECKING

from ..finish import STEADY_REACH, check_steady
from ..options import UpscaleOptions
from ..words import read_grain

if TYPE_CHECKING:
    from ..finish.mask import Mask
    from ..video import TimeWindow

STAGES = ("decode", "shots", "resize", "model", "blend", "encode", "mux")
"""What a job spends its time on."""


@dataclass(slots=True)
class StageClock:
    """Seconds spent in each stage."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        """Add the duration of the block to a stage."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.add(stage, time.perf_counter() - start)

    def add(self, stage: str, seconds: float) -> None:
        """Add a duration to a stage."""
        self.seconds[stage] = self.seconds.get(stage, 0.0) + seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What the result should look like."""

    width: int
    """Pixels of a row of the result."""
    height: int
    """Rows of the result."""
    strength: float = 1.0
    """Share of the model's residual: 0 is the plain resize, 1 the full model."""
    color_anchor: bool = True
    """Whether the low frequencies of the input are kept."""
    grain: float | str | None = None
    """Film grain: 0 to 1, or "auto" for the source's own."""
    grain_seed: int = 0
    """Another seed is another grain of the same kind."""
    mask: Mask | None = None
    """Where the model's work counts; `t h w` in [0, 1], too."""
    steady: float = 0.0
    """How much of the average along motion is taken: 0 is each picture as it is."""

    @property
    def frames_beyond(self) -> int:
        """Finished frames on each side that a frame depends on."""
        return STEADY_REACH if self.steady and self.strength else 0

    @classmethod
    def of(cls, options: UpscaleOptions, width: int, height: int) -> Look:
        """What options that have the names of fields here ask for.

        Args:
            options: Of the job.
            width: Pixels of a row of the result.
            height: Its rows.
        """
        names = {part.name for part in fields(cls)} - {"width", "height"}
        return cls(width=width, height=height, **{name: getattr(options, name) for name in names})

    def with_fitted_mask(
        self,
        num_frames: int | None,
        *,
        window: TimeWindow | None = None,
        rate: Fraction = Fraction(24),
    ) -> Look:
        """This look with its mask checked against a clip.

        Args:
            num_frames: Of the clip, or of the piece of it, if known.
            window: The piece; None is everything.
            rate: Of a film, frames per second; in memory a mask needs none.

        Raises:
            ValueError: The mask has another number of frames, or is 0 everywhere.
            VideoError: It cannot be read.
        """
        if self.mask is None:
            return self
        return replace(self, mask=self.mask.fitted(num_frames, window=window, rate=rate))

    def __post_init__(self) -> None:
        if not 0 <= self.strength <= 1:
            raise ValueError(f"strength must be between 0 and 1, got {self.strength}")
        object.__setattr__(self, "grain", read_grain(self.grain))
        if self.grain_seed < 0:
            raise ValueError(f"grain_seed must be 0 or more, got {self.grain_seed}")
        if self.mask is not None:
            from ..finish.mask import Mask  # loads torch, which a refusal can do without

            object.__setattr__(self, "mask", Mask.of(self.mask))
        check_steady(self.steady)
