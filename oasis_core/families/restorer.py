"""What an engine asks of a model: its traits, how it is prepared, and one call that restores."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from ..geometry import next_valid_num_frames, round_up

if TYPE_CHECKING:
    from collections.abc import Sequence

PROBE_SIDE_PX = 128
PROBE_FRAMES = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Traits:
    """What an engine must know of a restorer before it runs: plain values, no functions.

    Pickled to cluster workers and compared in tests. Pixels are pixels of what the restorer reads.
    """

    name: str
    """Name for people, reports and journals, such as "oasis-tiny"."""
    family: str
    """Module of `families/` that made it, such as "tiny" or "wan"."""
    stride: tuple[int, int, int] = (1, 1, 1)
    """(frames, rows, columns) of one token. The engine fills a clip up to k * frames + 1 frames by
    repeating the last, and to whole rows and columns by reflection; tiles start on this grid."""
    reads: Literal["resized", "source"] = "resized"
    """"resized": the source enlarged to the wanted size, so any scale works; "source": the source
    as it is, restored at `native_scale` and then resized to the wanted size."""
    native_scale: int = 1
    """Pixels written for each pixel read, per side; always 1 where `reads` is "resized"."""
    is_per_frame: bool = False
    """Whether a frame's result depends on that frame alone; then frames are handed over one by one
    and none is computed twice."""
    least_side: int = 1
    """Rows and columns that a clip must have at least."""
    overlap_px: int = 32
    """Least pixels that neighbouring tiles share; the middle half of them is faded, the outer
    quarters are thrown away."""
    tiling: Literal["free", "avoid", "never"] = "free"
    """"avoid": tiles change the result, so they are planned only where a whole frame does not fit;
    "never": one tile, or a refusal."""
    halo_frames: int = 0
    """Least frames behind a segment, and before it unless `lead_frames` is larger, that must be
    read; a look-ahead is one. A user may ask for more."""
    lead_frames: int = 0
    """Frames before a segment from which the state inside the restorer is built; computed and
    thrown away."""
    segment_multiple: int = 1
    """A full segment produces a multiple of so many frames, the first of a shot `lead_frames`
    more; only the last two of a shot may not."""
    wants_opening: bool = False
    """Whether a clip is restored with the first frame of its shot in view, wherever it begins."""
    numbers_frames: bool = False
    """Whether a frame's number in the job decides its result, too, as drawn noise may; then equal
    pictures are computed each time."""
    arithmetic: Literal["probe", "own"] = "probe"
    """"probe": float32 weights, computed in autocast where that is close enough; "own": the
    restorer computes in the dtype it is prepared for and decides on every rounding itself."""
    dtypes: tuple[str, ...] = ("float32", "bfloat16", "float16")
    """Arithmetic it can do; nothing else is chosen for it."""

    def __post_init__(self) -> None:
        if self.reads == "resized" and self.native_scale != 1:
            raise ValueError(
                f"native_scale must be 1 for a restorer that reads the resized picture, got "
                f"{self.native_scale}; let it read the source"
            )
        numbers = (*self.stride, self.native_scale, self.least_side, self.segment_multiple)
        if min(numbers) < 1 or min(self.overlap_px, self.halo_frames, self.lead_frames) < 0:
            raise ValueError(
                f"stride, native_scale, least_side and segment_multiple must be at least 1, "
                f"overlap_px, halo_frames and lead_frames at least 0, got {self}"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a clip lies in its job: who draws noise draws for a piece what the whole would have."""

    first_frame: int
    """Number in the job of the clip's first frame."""
    top: int
    """First row of the tile in the padded picture that is read."""
    left: int
    """First column of the tile in the padded picture that is read."""
    opening: Tensor | None = field(default=None, compare=False, repr=False)
    """The first frame of the shot at this place, `1 3 1 h w` in [0, 1], for a restorer that wants
    it; None: the clip's own first frame is that."""


START = Place(first_frame=0, top=0, left=0)
"""The beginning of a job."""


@runtime_checkable
class Restorer(Protocol):
    """A loaded model. The engine sees no other side of it."""

    traits: Traits
    """What an engine must know before it runs."""
    network: nn.Module
    """The network: what ComfyUI moves between memories, and whose layers are hooked for progress
    and for cancelling. Several restorers may share one."""
    facts: dict[str, Any]
    """What its file says for people, as JSON values: "licence", "source" and what else it has."""

    @property
    def identity(self) -> str:
        """What tells results apart; written into journals and metadata as "hash"."""

    def prepare(self, device: torch.device, dtype: torch.dtype) -> None:
        """Bring the network to a device and lay it out for this restorer.

        Called before every run; a second call with the same values does nothing.

        Args:
            device: Where it will run.
            dtype: Precision in which a restorer of its "own" arithmetic holds its matrices; others
                keep float32 whatever is said.
        """

    def restore(self, clip: Tensor, place: Place) -> Tensor:
        """Restore a clip, by a function of its arguments and the weights alone.

        Nothing of one call is seen by the next.

        Args:
            clip: `1 3 t h w` in [0, 1], filled up to `traits.stride`, on the prepared device.
            place: Where it lies.

        Returns:
            Reads "resized": `1 3 t h w`, what is to be added to the clip, not clamped. Reads
            "source": the restored frames `1 3 t N*h N*w` in [0, 1], N = `traits.native_scale`.
        """

    def memory_bytes(
        self, num_frames: int, height: int, width: int, sample_bytes: int
    ) -> int | None:
        """Working memory of `restore` in bytes, weights not included.

        Args:
            num_frames: Frames of the clip.
            height: Rows of the clip in pixels.
            width: Columns of the clip in pixels.
            sample_bytes: Bytes of a number of its arithmetic: 2 or 4.

        Returns:
            Bytes, or None if unknown: then the engine measures one small clip.
        """


# Capabilities: asked for with isinstance, refused by name where they are missing


@runtime_checkable
class HasRouting(Protocol):
    """A restorer whose attention heads can be measured and routed."""

    rerouter: Any
    """The `Rerouter` of the network, shared by all restorers of that network."""
    routing: Any
    """The `HeadRouting` that `prepare` applies, in the file's head order."""

    def routed(self, routing: Any) -> Restorer:
        """The same model with another `HeadRouting`, or with its own for None; shares the network.

        Raises:
            ValueError: The routing is of another network.
        """


@runtime_checkable
class HasTransformer(Protocol):
    """A restorer of a transformer that may be left out, if anything works without it."""

    def without_transformer(self) -> Restorer:
        """The same model without its transformer; shares the network.

        Raises:
            ValueError: Nothing of it works without.
        """


@runtime_checkable
class HasLatent(Protocol):
    """A restorer that goes through a latent which others can decode or sample on."""

    latent_channels: int
    """Channels c of the latent."""
    latent_stride: tuple[int, int, int]
    """(frames, rows, columns) of one cell; the first cell holds one frame only."""

    def predict_latent(self, clip: Tensor, place: Place = START) -> Tensor:
        """Restore a clip up to its latent.

        Args:
            clip: `1 3 t h w` in [0, 1], in whole cells of the latent, on the prepared device.
            place: Where it lies, for models that draw noise.

        Returns:
            `1 c t' h' w'` in the family's own scale.
        """

    def to_vae(self, latent: Tensor) -> Tensor:
        """A float32 latent of `predict_latent` as the family's public VAE stores it.

        A step of its own, since tiles are joined before it.
        """


def routing_of(restorer: Restorer) -> HasRouting:
    """The restorer as one with routed heads.

    Raises:
        ValueError: It has none.
    """
    if not isinstance(restorer, HasRouting):
        raise ValueError(
            f"routing needs a model with attention heads like oasis-tiny, got "
            f"{restorer.traits.name}, which has none; use it as it is"
        )
    return restorer


def without_transformer(restorer: Restorer) -> Restorer:
    """The same model without its transformer.

    Raises:
        ValueError: It has none, or nothing of it works without.
    """
    if not isinstance(restorer, HasTransformer):
        raise ValueError(
            f"{restorer.traits.name} has no transformer that could be left out; use it as it is"
        )
    return restorer.without_transformer()


def probe_clip(traits: Traits, device: torch.device) -> Tensor:
    """A small textured clip of a size that a restorer takes: `1 3 t h w`, the same every time."""
    sides: Sequence[int] = traits.stride[1:]
    # What reads the source writes more pixels than it reads, and is as deep as it likes.
    probe_px = PROBE_SIDE_PX if traits.reads == "resized" else PROBE_SIDE_PX // 2
    height, width = (round_up(max(probe_px, traits.least_side), side) for side in sides)
    num_frames = 1 if traits.is_per_frame else PROBE_FRAMES
    num_frames = next_valid_num_frames(num_frames, traits.stride[0])
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(1, 3, num_frames, height, width, generator=generator)
    y, x = torch.arange(height)[:, None], torch.arange(width)[None, :]
    waves = torch.sin(x * (0.05 + y * 0.004)) * 0.3 + 0.5
    return (waves + noise * 0.04).clamp(0, 1).to(device)
