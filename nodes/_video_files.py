"""VIDEO values as files that can be streamed, and upscaling them into ComfyUI's folders."""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from comfy_api.latest import Input, InputImpl, Types
from torch import Tensor

from . import _adapters

logger = logging.getLogger(__name__)

SOUND_SIDE_PX = 16
"""Side of the pictures of a file that only carries sound; the least that encoders take."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceFile:
    """A video that lies on disk."""

    path: Path
    """The file."""
    size: tuple[int, int]
    """(width, height) in upright pixels."""
    start_s: float | None = None
    """Seconds after the first frame where the VIDEO begins; None is the beginning."""
    duration_s: float | None = None
    """Its length in seconds; None is to the end."""
    name: str | None = None
    """What results are called when the file is only there for one run."""


@contextmanager
def on_disk(video: Input.Video) -> Iterator[SourceFile]:
    """A file and the piece of it that a VIDEO shows; it may vanish after the block.

    A file, trimmed or not, is used as it is, whatever its length. Everything else (a cropped file,
    a file in memory, frames from Create Video) is written losslessly into a folder of its own.
    """
    is_whole_picture = not _ask(video, "has_pending_frame_edits", False)
    is_plain = isinstance(video, InputImpl.VideoFromFile) and is_whole_picture
    source = video.get_stream_source() if is_plain else None
    if isinstance(source, (str, Path)):
        yield _described(Path(source), video)
        return
    temp = _adapters.temp_folder()
    folder = Path(tempfile.mkdtemp(prefix="oasis_", dir=temp))
    try:
        path = folder / "source.mkv"
        if source is None:
            _write_frames(video, path)
            yield _described(path, name=folder.name)
        else:
            with path.open("wb") as file:
                shutil.copyfileobj(source, file)
            yield _described(path, video, name=folder.name)
    finally:
        # No later run could go on from a source that is gone.
        for leftover in (folder, *temp.glob(f"{folder.name}.*.oasis")):
            shutil.rmtree(leftover, ignore_errors=True)


def upscale_on_disk(
    source: SourceFile, model: _adapters.LoadedModel, settings: dict[str, Any]
) -> tuple[Path, dict[str, Any]]:
    """Upscale into ComfyUI's temporary folder.

    The same job has the same place there: a cancelled one goes on where it stopped, and a finished
    one whose result ComfyUI dropped from its cache is not done again.

    Args:
        source: The input.
        model: What upscales it.
        settings: Options of `oasis_core.upscale_file` that decide the result, as JSON values.

    Returns:
        The result and the report about it.
    """
    from ..oasis_core import upscale_file

    path = _result_path(source, model, settings)
    facts = path.with_suffix(".json")
    progress = _adapters.Progress()
    if path.is_file() and facts.is_file():
        progress.found()
        return path, json.loads(facts.read_text(encoding="utf-8"))
    with _adapters.running(model) as upscaler:
        report = upscale_file(
            source.path,
            path,
            model=upscaler,
            overwrite=True,
            on_segment=progress.begin_segment,
            on_progress=progress,
            **settings,
        )
    for loss in report.dropped:
        logger.warning("%s: not kept: %s", source.path.name, loss)
    facts.write_text(json.dumps(report.to_json(), indent=1), encoding="utf-8")
    return path, report.to_json()


def _result_path(
    source: SourceFile, model: _adapters.LoadedModel, settings: dict[str, Any]
) -> Path:
    name = source.name
    if name is None:
        status = source.path.stat()
        identity = [str(source.path), status.st_size, status.st_mtime_ns]
        identity += [model.identity, model.dtype, settings]
        name = f"oasis_{hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:16]}"
    suffix = ".mkv" if settings["codec"] == "ffv1" else ".mp4"
    return _adapters.temp_folder() / (name + suffix)


def _described(
    path: Path, trimmed: Input.Video | None = None, name: str | None = None
) -> SourceFile:
    from ..oasis_core.video import probe

    info = probe(path)
    start_s, duration_s = (0.0, 0.0) if trimmed is None else _trim_of(trimmed)
    if start_s < 0:  # counted from the end
        start_s = max(0.0, (info.duration_s or 0.0) + start_s)
    return SourceFile(
        path=path,
        size=(info.width, info.height),
        start_s=start_s or None,
        duration_s=duration_s or None,
        name=name,
    )


def _trim_of(video: Input.Video) -> tuple[float, float]:
    """Start and length in seconds of a trim, which the stream source does not contain.

    A length of 0 is to the end.
    """
    if hasattr(video, "get_active_trim_window"):
        return video.get_active_trim_window()
    # ComfyUI from 0.14 to 0.23 keeps a trim in private attributes only; older ones cannot trim.
    names = ("_VideoFromFile__start_time", "_VideoFromFile__duration")
    start_s, duration_s = (float(getattr(video, name, 0)) for name in names)
    return start_s, duration_s


def _ask(video: Input.Video, method: str, missing: Any) -> Any:
    return getattr(video, method, lambda: missing)()


def _write_frames(video: Input.Video, path: Path) -> None:
    """Write the frames losslessly, with their sound, as Matroska."""
    if isinstance(video, InputImpl.VideoFromFile):
        # ComfyUI decodes the whole piece at once.
        num_frames = round(video.get_duration() * float(video.get_frame_rate()))
        _adapters.check_memory(num_frames, video.get_dimensions(), "decode the cropped input")
    components = video.get_components()
    frames = _adapters.to_video(components.images)[0].transpose(0, 1)
    sound = None
    if components.audio is not None:
        sound = path.with_name("sound.mp4")
        _write_sound(components, len(frames), sound)
    write_clip(frames, Fraction(components.frame_rate), path, codec="ffv1", sound=sound)


def write_clip(
    clip: Tensor,
    frame_rate: Fraction,
    path: Path,
    *,
    codec: str,
    crf: float | None = None,
    sound: Path | None = None,
) -> None:
    """Encode frames into a file.

    Args:
        clip: `t 3 h w`, float in [0, 1].
        frame_rate: Frames per second.
        path: The file; appears complete or not at all.
        codec: One of the engine's.
        crf: Lower is better; None is the codec's default.
        sound: File whose sound is taken.
    """
    from ..oasis_core.video import EncodeSpec, SegmentWriter, mux
    from ..oasis_core.video.pixels import tensor_to_frame

    spec = EncodeSpec(
        codec=codec,
        width=clip.shape[3],
        height=clip.shape[2],
        frame_rate=frame_rate,
        time_base=1 / frame_rate,
        crf=crf,
    )
    pictures = path.with_name(f"{path.stem}.pictures.mkv")
    try:
        with SegmentWriter(pictures, spec) as writer:
            for index, frame in enumerate(clip):
                writer.write(tensor_to_frame(frame.clone(), np.uint8), index, 1)
        mux([pictures], sound, path, spec)
    finally:
        pictures.unlink(missing_ok=True)


def _write_sound(components: Types.VideoComponents, num_frames: int, path: Path) -> None:
    """Let ComfyUI encode the sound; its file needs pictures, which are as small as can be."""
    blank: Tensor = components.images.new_zeros(num_frames, SOUND_SIDE_PX, SOUND_SIDE_PX, 3)
    carrier = Types.VideoComponents(
        images=blank, audio=components.audio, frame_rate=Fraction(components.frame_rate)
    )
    InputImpl.VideoFromComponents(carrier).save_to(str(path))
