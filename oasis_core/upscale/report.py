"""What a finished run says about itself."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .plan import Plan


@dataclass(frozen=True, slots=True, kw_only=True)
class UpscaleReport:
    """The facts of one upscaled file."""

    source: str
    """Path of the input."""
    destination: str
    """Path of the output."""
    frames: int
    """Frames of the output, equal to those of the input."""
    source_width: int
    """Pixels of the input."""
    source_height: int
    """Pixels of the input."""
    width: int
    """Pixels of the output."""
    height: int
    """Pixels of the output."""
    seconds: dict[str, float]
    """Per stage: decode, shots, resize, model, blend, encode, mux, and total."""
    fps: float
    """Frames done in this run per second of its total."""
    peak_rss_bytes: int
    """Largest resident size of the process so far; 0 where the system does not say."""
    peak_cuda_bytes: int
    """Largest amount allocated on the CUDA device so far; 0 for other devices."""
    plan: Plan
    """How the job was cut up."""
    tile: tuple[int, int]
    """Tile (height, width) at the end: smaller than planned after running out of memory."""
    device: str
    """Where the model ran."""
    dtype: str
    """Arithmetic of the model."""
    model: str
    """Name of the model."""
    model_hash: str
    """SHA-256 that identifies its weights."""
    codec: str
    """Codec of the output."""
    num_shots: int
    """Shots found."""
    num_segments: int
    """Segments of the whole clip."""
    num_resumed_segments: int
    """Segments that an earlier run had finished."""
    num_corrupt_frames: int
    """Frames of the input that the decoder flagged as damaged and concealed."""
    num_held_frames: int
    """Frames that were not computed, because they and all that the model sees of their neighbours
    equal what was computed just before."""
    kept: tuple[str, ...]
    """Other streams and data that the output has, one line each."""
    dropped: tuple[str, ...]
    """What it could not keep, and why."""

    def to_json(self) -> dict[str, Any]:
        """The report as plain JSON values."""
        values = asdict(self)
        lists = {name: list(values[name]) for name in ("tile", "kept", "dropped")}
        return values | lists | {"plan": self.plan.to_json()}
