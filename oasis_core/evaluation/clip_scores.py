"""Two versions of a clip against each other, or both against the true one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..upscale.progress import stage_of
from .metrics import SSIM_WINDOW, psnr, ssim, to_uint8
from .warping import motion, warping_error

OnProgress = Callable[[float, float], None]
LINE_PX = 2
"""Width of the line between the halves of a split picture."""


def match_clips(*clips: Tensor, check: Callable[[], None] | None = None) -> tuple[Tensor, ...]:
    """Bring clips to the frames they share and to the size of the largest.

    Args:
        clips: Each `t 3 h w`, float in [0, 1].
        check: Called before each frame that is resized; may raise to stop.

    Returns:
        The clips, in order; smaller ones enlarged bicubically.

    Raises:
        ValueError: One is empty or no colour clip.
    """
    for clip in clips:
        if clip.ndim != 4 or clip.shape[1] != 3 or 0 in clip.shape:
            raise ValueError(
                f"a clip must be t 3 h w with no empty axis, got {tuple(clip.shape)}; give frames "
                "in colour"
            )
    num_frames = min(len(clip) for clip in clips)
    size = max((tuple(clip.shape[2:]) for clip in clips), key=lambda side: side[0] * side[1])
    return tuple(resize_clip(clip[:num_frames], size, check) for clip in clips)


def resize_clip(
    clip: Tensor, size: tuple[int, int], check: Callable[[], None] | None = None
) -> Tensor:
    """Bring `t 3 h w` to `size` (height, width) bicubically; float32 in [0, 1]."""
    if tuple(clip.shape[2:]) == size:
        return clip.float().clamp(0, 1)
    # Frame by frame: the intermediate of a whole clip would be large.
    frames = []
    for frame in clip:
        if check is not None:
            check()
        frames.append(F.interpolate(frame[None].float(), size, mode="bicubic", antialias=True))
    return torch.cat(frames).clamp(0, 1)


def compare_clips(
    before: Tensor,
    after: Tensor,
    truth: Tensor | None = None,
    *,
    has_motion: bool = True,
    on_progress: OnProgress | None = None,
) -> dict[str, Any]:
    """Measure clips of one size, on the 8-bit levels that a file would hold.

    Args:
        before: `t 3 h w`, float in [0, 1].
        after: Like `before`.
        truth: Like `before`; with it both are measured against it, else `after` against `before`.
        has_motion: Also measure the warping error, which takes far longer than the rest.
        on_progress: Called with (frames done, frames in all), and its `stage`, if it has one, with
            ("motion" or "measure", frames done, frames) at every pass; may raise to stop.

    Returns:
        JSON values: "reference", and for each measured clip psnr_db, ssim (None below 11 pixels)
        and warping_error (x 1000, along the motion of the reference; None for one frame, or
        without `has_motion`).
    """
    clips = {"before": before, "after": after}
    reference = to_uint8(before if truth is None else truth)
    steps = _Steps(on_progress, len(reference), has_motion=has_motion)
    flows = None
    if has_motion and len(reference) > 1:
        flows = _motion(reference, steps)
    measured = {}
    for name, clip in clips.items():
        clip = to_uint8(clip)
        is_reference = truth is None and name == "before"
        is_large = min(clip.shape[2:]) >= SSIM_WINDOW
        measured[name] = {
            "psnr_db": None if is_reference else round(_mean(psnr, clip, reference, steps), 3),
            "ssim": round(_mean(ssim, clip, reference, steps), 5)
            if is_large and not is_reference
            else None,
            "warping_error": None
            if flows is None
            else round(warping_error(clip, flows, steps.check), 4),
        }
    if on_progress is not None:
        on_progress(len(reference), len(reference))
    return {
        "reference": "before" if truth is None else "truth",
        "frames": len(reference),
        **measured,
    }


class _Steps:
    """Says frame by frame, and within a pair pass by pair, what is being measured."""

    def __init__(
        self, on_progress: OnProgress | None, num_frames: int, *, has_motion: bool
    ) -> None:
        self._on_progress, self._on_stage = on_progress, stage_of(on_progress)
        self._num_frames, self._has_motion = num_frames, has_motion
        self._place = ("measure", 0)

    def begin(self, stage: str, index: int) -> None:
        """Say that a frame or pair is begun."""
        self._place = (stage, index)
        self.check()
        if self._on_progress is not None and (stage == "motion") == self._has_motion:
            self._on_progress(index, self._num_frames)

    def check(self) -> None:
        """Say that it is still at work."""
        self._on_stage(*self._place, self._num_frames)


def _mean(
    measure: Callable[[Tensor, Tensor], float], clip: Tensor, reference: Tensor, steps: _Steps
) -> float:
    """The mean over frames, taken one by one so that it can be stopped."""
    values = []
    for index in range(len(clip)):
        steps.begin("measure", index)
        values.append(measure(clip[index : index + 1], reference[index : index + 1]))
    return sum(values) / len(values)


def _motion(reference: Tensor, steps: _Steps) -> list[tuple[Tensor, Tensor]]:
    """Motion of a clip, pair by pair, so that it can be stopped."""
    flows = []
    for index in range(len(reference) - 1):
        steps.begin("motion", index)
        flows += motion(reference[index : index + 2], steps.check)
    return flows


def side_by_side(before: Tensor, after: Tensor) -> Tensor:
    """Frames `t 3 h w` next to each other, `t 3 h 2w`."""
    return torch.cat((before, after), dim=3)


def split_view(before: Tensor, after: Tensor, share: float = 0.5) -> Tensor:
    """One picture `t 3 h w`: `before` on the left of a white line at `share` of the width.

    Raises:
        ValueError: `share` is not in [0, 1].
    """
    if not 0 <= share <= 1:
        raise ValueError(f"share must be in [0, 1], got {share}; 0.5 is the middle")
    column = round(share * before.shape[3])
    view = torch.cat((before[..., :column], after[..., column:]), dim=3)
    start = max(0, column - LINE_PX // 2)
    view[..., start : start + LINE_PX] = 1
    return view


LAYOUTS = {"side by side": side_by_side, "split": split_view}
"""Ways to show two clips in one."""
