"""What a plan has to fit: pictures, frames and a restorer, in bytes and in work."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from functools import partial

from ..families.restorer import Restorer, Traits
from ..finish import STEADY_REACH
from ..geometry import next_valid_num_frames, round_up
from ..model.live_bytes import SAFETY
from .tiles import TileGrid

SAMPLE_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
ENCODER_FRAMES = 60
"""Frames that an encoder with look-ahead holds."""
STEADY_PICTURES = 5 * STEADY_REACH // 2 + 4
"""Of 8 bytes a pixel that taking flicker out holds: those as they came, averages of some, work."""
LEAST_SOURCE_TILE_PX = 16
"""Smaller tiles of a source are nearly all overlap, whatever their model's stride."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """What a plan has to fit."""

    source_width: int
    """Columns of the source in pixels."""
    source_height: int
    """Rows of the source in pixels."""
    width: int
    """Columns of the result in pixels."""
    height: int
    """Rows of the result in pixels."""
    bytes_per_channel: int
    """Bytes of a source sample: 1, 2, 4 or 6."""
    traits: Traits
    """What the restorer is like."""
    model_bytes: float
    """Working memory of the restorer in bytes per pixel and frame that it reads."""
    dtype: str
    """Arithmetic of the restorer."""
    memory_model: Callable[[int, int, int], int] | None = None
    """Working memory of the restorer for (frames, height, width), where it is known exactly; then
    `model_bytes` is not looked at."""
    frames_beyond: int = 0
    """Finished frames on each side of a segment that what follows the model looks at."""

    @property
    def lead_frames(self) -> int:
        """Frames before a segment that build the restorer's state, and those finished beyond."""
        traits = self.traits
        if not traits.lead_frames:
            return 0
        return traits.lead_frames + round_up(self.frames_beyond, traits.segment_multiple)

    @property
    def stride(self) -> tuple[int, int, int]:
        """(frames, rows, columns) of one token."""
        return self.traits.stride

    @property
    def overlap_px(self) -> int:
        """Least pixels that neighbouring tiles share, of what is read."""
        return self.traits.overlap_px

    @property
    def padded(self) -> tuple[int, int]:
        """Height and width of what is read, in whole tokens."""
        if self.traits.reads == "source":
            return padded_size(self.traits, self.source_height, self.source_width)
        return padded_size(self.traits, self.height, self.width)

    @property
    def native_pixels(self) -> int:
        """Pixels of a picture as the restorer writes it, or of the result if that is larger."""
        scale = self.traits.native_scale
        return max(self.width * self.height, self.source_width * self.source_height * scale**2)

    @property
    def encoder_bytes(self) -> int:
        """Bytes of the finished frames that the encoder holds."""
        return 3 * self.width * self.height * (ENCODER_FRAMES // 2)

    @property
    def resized_to(self) -> str:
        """The result's size in words where the restorer's own picture is resized to it, or ""."""
        scale = self.traits.native_scale
        source = self.source_width, self.source_height
        if self.traits.reads == "resized" or (self.width, self.height) == tuple(
            scale * side for side in source
        ):
            return ""
        factors = {Fraction(self.width, source[0]), Fraction(self.height, source[1])}
        if len(factors) == 1:
            return f"{float(factors.pop()):g}x"
        return f"{self.width}x{self.height} px"

    def num_read(self, segment_frames: int, halo_frames: int) -> int:
        """Frames that the restorer sees of a full segment."""
        before = max(halo_frames, self.lead_frames)
        return next_valid_num_frames(segment_frames + before + halo_frames, self.stride[0])

    def num_computed(self, segment_frames: int, halo_frames: int) -> int:
        """Frames that a full segment costs; of a restorer of single frames none is done twice."""
        if self.traits.is_per_frame:
            return segment_frames
        return self.num_read(segment_frames, halo_frames)

    def num_at_once(self, segment_frames: int, halo_frames: int) -> int:
        """Frames of one call of the restorer."""
        if self.traits.is_per_frame:
            return next_valid_num_frames(1, self.stride[0])
        return self.num_read(segment_frames, halo_frames)

    def segment_bytes(self, grid: TileGrid, segment_frames: int, halo_frames: int) -> int:
        """Working memory of a segment in bytes, all of it on the device."""
        waiting = self.waiting_bytes(grid, segment_frames, halo_frames)
        return waiting + self.tile_bytes(grid, segment_frames, halo_frames)

    def waiting_bytes(self, grid: TileGrid, segment_frames: int, halo_frames: int) -> int:
        """Bytes of a segment's frames before the model, and after it until their last tile."""
        num_clip = self.num_at_once(segment_frames, halo_frames)
        clip = 3 * self.padded[0] * self.padded[1] * num_clip
        result = 3 * self.width * self.height
        segment_frames += 2 * self.frames_beyond
        if self.traits.reads == "source" or self.traits.is_per_frame:
            # Pictures as the model writes them, and those of the wanted size; a restorer of single
            # frames keeps what the next segment needs of this one's halo.
            canvas = 3 * self.native_pixels * num_clip if grid.num_tiles > 1 else 0
            canvas += result * (segment_frames + halo_frames)
        else:
            canvas = 0 if grid.num_tiles == 1 else result * segment_frames
        return SAMPLE_BYTES[self.dtype] * (clip + canvas)

    def tile_bytes(self, grid: TileGrid, segment_frames: int, halo_frames: int) -> int:
        """Bytes of the model on one tile, and of the frames at the ends of the work."""
        num_read = self.num_read(segment_frames, halo_frames)
        num_at_once = self.num_at_once(segment_frames, halo_frames)
        tile = (grid.vertical.tile, grid.horizontal.tile)
        if self.memory_model is not None:
            model = SAFETY * self.memory_model(num_at_once, *tile)
        else:
            model = SAFETY * self.model_bytes * tile[0] * tile[1] * num_at_once
        held = num_read + max(segment_frames // 2, halo_frames)
        source = 3 * self.bytes_per_channel * self.source_width * self.source_height * held
        frames = 3 * self.width * self.height * 3 * 4
        if self.frames_beyond:
            frames += 8 * self.width * self.height * STEADY_PICTURES
        if self.traits.reads == "source":
            frames += 3 * self.native_pixels * 2 * 4  # one picture, resized
        return int(model + source + frames + self.encoder_bytes)


def padded_size(traits: Traits, height: int, width: int) -> tuple[int, int]:
    """(height, width) of what a restorer reads, filled up to its stride and least side."""
    _, rows, columns = traits.stride
    least = traits.least_side
    return round_up(max(height, least), rows), round_up(max(width, least), columns)


def least_tile_px(traits: Traits) -> int:
    """Least side of a tile in pixels that are read."""
    two_tokens = 2 * max(traits.stride[1:])
    if traits.reads == "resized":
        return max(two_tokens, traits.least_side)
    return max(two_tokens, traits.least_side, LEAST_SOURCE_TILE_PX)


def workload(
    restorer: Restorer,
    source_size: tuple[int, int],
    size: tuple[int, int],
    *,
    dtype: str,
    bytes_per_channel: int = 1,
    measure: Callable[[], float],
) -> Workload:
    """What a plan has to fit for a restorer.

    Args:
        restorer: Asked for its memory; where it does not know it, `measure` is called.
        source_size: (width, height) of the source in pixels.
        size: (width, height) of the result in pixels.
        dtype: Name of its arithmetic.
        bytes_per_channel: Bytes of a source sample.
        measure: Working memory of the restorer in bytes per pixel and frame that it reads.
    """
    memory = partial(_memory, restorer, SAMPLE_BYTES[dtype])
    stride = restorer.traits.stride
    is_known = memory(next_valid_num_frames(1, stride[0]), *padded_size(restorer.traits, 1, 1))
    return Workload(
        source_width=source_size[0],
        source_height=source_size[1],
        width=size[0],
        height=size[1],
        bytes_per_channel=bytes_per_channel,
        traits=restorer.traits,
        model_bytes=measure() if is_known is None else 0.0,
        dtype=dtype,
        memory_model=None if is_known is None else memory,
    )


def _memory(
    restorer: Restorer, sample_bytes: int, num_frames: int, height: int, width: int
) -> int | None:
    return restorer.memory_bytes(num_frames, height, width, sample_bytes)
