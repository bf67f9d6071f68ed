"""VIDEO values as sources for the engine: files where there are files, else frames in memory."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from comfy_api.latest import Input, InputImpl, Types
from torch import Tensor

from . import _adapters

if TYPE_CHECKING:
    from ..oasis_core.video import ClipSource

SOUND_SIDE_PX = 16
"""Side of the pictures of a file that only carries sound; the least that encoders take."""
COPY_BYTES = 1 << 22
TRANSFERS = {"HDR": 18, "HDR PQ": 16}
"""ComfyUI's colour space -> FFmpeg's number of its transfer; both have colours of BT.2020."""
BT2020, LIMITED = 9, 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """What the engine reads."""

    place: Path | ClipSource
    """A file, or frames."""
    size: tuple[int, int]
    """(width, height) in upright pixels."""
    identity: tuple[Any, ...]
    """JSON values that differ for other content."""
    start_s: float | None = None
    """Seconds after the first frame where the VIDEO begins; None is the beginning."""
    duration_s: float | None = None
    """Its length in seconds; None is to the end."""
    bit_depth: int | None = None
    """Bits that frames are meant to be encoded with; None: a file says so itself."""


@contextmanager
def opened(video: Input.Video, check: Callable[[], None]) -> Iterator[Source]:
    """A source and the piece of it that a VIDEO shows; it may vanish after the block.

    A file, trimmed or not, is used as it is, whatever its length. A file in memory is written down
    for as long as the block runs. Frames (from Create Video, of a crop, of another pack's VIDEO)
    are handed over as they are. Whatever it is, the same content is the same source another time.

    Args:
        video: The VIDEO.
        check: Called every now and then; may raise to stop.
    """
    is_whole_picture = not _ask(video, "has_pending_frame_edits", False)
    is_plain = isinstance(video, InputImpl.VideoFromFile) and is_whole_picture
    stream = video.get_stream_source() if is_plain else None
    if isinstance(stream, (str, Path)):
        status = Path(stream).stat()
        identity = (str(stream), status.st_size, status.st_mtime_ns)
        yield _described(Path(stream), video, identity)
    elif stream is not None:
        with _written_down(stream, check) as path:
            yield _described(path, video, (path.name,))
    else:
        with _frames_of(video, check) as source:
            yield source


def _ask(video: Input.Video, method: str, missing: Any) -> Any:
    return getattr(video, method, lambda: missing)()


def _described(path: Path, video: Input.Video, identity: tuple[Any, ...]) -> Source:
    from ..oasis_core.video import probe

    info = probe(path)
    start_s, duration_s = _trim_of(video)
    if start_s < 0:  # counted from the end
        start_s = max(0.0, (info.duration_s or 0.0) + start_s)
    return Source(
        place=path,
        size=(info.width, info.height),
        identity=identity,
        start_s=start_s or None,
        duration_s=duration_s or None,
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


@contextmanager
def _written_down(stream: Any, check: Callable[[], None]) -> Iterator[Path]:
    """A file in memory, on the disk under a name and a time that follow from its content."""
    digest = hashlib.sha256()
    part = _adapters.temp_folder() / f"oasis_source_{os.getpid()}_{id(stream)}.part"
    try:
        with part.open("wb") as file:
            while block := stream.read(COPY_BYTES):
                check()
                digest.update(block)
                file.write(block)
        path = part.with_name(f"oasis_source_{digest.hexdigest()[:16]}.mkv")
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    try:
        os.utime(path, (1, 1))
        yield path
    finally:
        path.unlink(missing_ok=True)


@contextmanager
def _frames_of(video: Input.Video, check: Callable[[], None]) -> Iterator[Source]:
    """The frames of a VIDEO, with their sound in a file."""
    from ..oasis_core.video import ClipSource, nearest_rate
    from ..oasis_core.video.info import ColorTags

    if isinstance(video, InputImpl.VideoFromFile):
        # ComfyUI decodes the whole piece at once.
        num_frames = round(video.get_duration() * float(video.get_frame_rate()))
        _adapters.check_memory(num_frames, video.get_dimensions(), "decode the cropped input")
    check()
    components = video.get_components()
    images, rate = components.images, nearest_rate(components.frame_rate)
    _adapters.check_images(images)
    sound, heard = None, ""
    if components.audio is not None and components.audio["waveform"].numel():
        heard = _sound_digest(components.audio)
        sound = _adapters.temp_folder() / f"oasis_sound_{heard}.mp4"
        _write_sound(images, components.audio, rate, sound)
    try:
        clip = ClipSource(
            frames=images[..., :3].permute(0, 3, 1, 2),
            frame_rate=rate,
            sound=sound,
            alpha=_alpha_of(components),
        )
        transfer = TRANSFERS.get(_ask(video, "get_color_space", "auto"))
        if transfer is not None:
            tags = {"primaries": BT2020, "transfer": transfer, "matrix": BT2020, "range": LIMITED}
            clip = replace(clip, color=ColorTags(**tags))
        yield Source(
            place=clip,
            size=(images.shape[2], images.shape[1]),
            identity=(clip.fingerprint(check), heard),
            bit_depth=10 if _ask(video, "get_bit_depth", 8) > 8 else 8,
        )
    finally:
        if sound is not None:
            sound.unlink(missing_ok=True)


def _alpha_of(components: Types.VideoComponents) -> Tensor | None:
    """Transparency as `t h w`, from a plane of its own or from a fourth channel."""
    alpha, images = getattr(components, "alpha", None), components.images
    if alpha is None:
        return images[..., 3] if images.shape[-1] > 3 else None
    return alpha.reshape(images.shape[:3])


def _sound_digest(audio: dict[str, Any]) -> str:
    wave = audio["waveform"].detach().cpu().contiguous()
    digest = hashlib.sha256(f"{audio['sample_rate']} {tuple(wave.shape)}".encode())
    digest.update(wave.flatten().view(torch.uint8).numpy())
    return digest.hexdigest()[:16]


def _write_sound(images: Tensor, audio: Any, frame_rate: Fraction, path: Path) -> None:
    """Let ComfyUI encode the sound; its file needs pictures, which are as small as can be."""
    blank = torch.zeros(len(images), SOUND_SIDE_PX, SOUND_SIDE_PX, 3)
    carrier = Types.VideoComponents(images=blank, audio=audio, frame_rate=frame_rate)
    InputImpl.VideoFromComponents(carrier).save_to(str(path))
