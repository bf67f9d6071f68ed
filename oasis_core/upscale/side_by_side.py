"""Before and after in one picture: the plain resize beside the result."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np

from ..choices import COMPARISONS
from ..remote import RemoteFile
from ..video import (
    CONTAINERS,
    EncodeSpec,
    Source,
    TimeWindow,
    VideoError,
    VideoFrame,
    VideoInfo,
    check_destination,
    check_encoder,
)
from ..video.film import write_film
from ..video.image_writer import IMAGE_FORMATS, ImageEncoder, ImageSpec
from ..video.names import distinct, find_numbered, is_pattern, numbered
from ..video.writer import write_atomically
from .job import exists_error, refuse_own_input

MODES = COMPARISONS
"""Ways to show both."""
LINE_PX = 2
"""Width of the line between the halves of a split picture."""
SEGMENT_FRAMES = 500
"""The times of so many frames are held in memory while their file is read back."""


def comparison_path(destination: Path) -> Path:
    """Where the comparison of an output lies: `NAME.compare.mp4` beside `NAME.mp4`.

    Of a sequence it is one (`out_%05d.compare.png`), of a folder a folder (`NAME.compare`).
    """
    return destination.with_name(f"{destination.stem}.compare{destination.suffix}")


def compare_files(
    source: str | Path | RemoteFile | Source,
    result: str | Path | Source,
    destination: str | Path,
    *,
    mode: str = "side",
    codec: str = "h264",
    crf: float | None = None,
    window: TimeWindow | None = None,
    deinterlace: bool = False,
    frame_rate: Fraction | None = None,
    overwrite: bool = False,
    pictures: Sequence[Path] | None = None,
    on_change: str = "scale",
) -> None:
    """Write a file that shows a source, resized plainly, beside what was made of it.

    Frames stream through; the sound is the result's. Of pictures the comparison may be pictures,
    too: as many, under a pattern or in a folder under their own names.

    Args:
        source: What was upscaled.
        result: What it became; its size is the size of the comparison's halves.
        destination: File, pattern or folder to write.
        mode: "side" shows two whole pictures side by side; "split" one picture, its left half from
            the source.
        codec: Of the video.
        crf: Its quality; None is the codec's default.
        window: The piece of the source that the result shows.
        deinterlace: As it was done for the result.
        frame_rate: Of the source, if it is pictures: the window counts in it.
        overwrite: Replace an existing destination.
        pictures: Those of the result, where they share their folder with others.
        on_change: Where the source goes on in another size: "stop", or "scale" it as for a result.

    Raises:
        VideoError: A file cannot be read or written, or the two do not belong together.
    """
    target, before = Path(destination), Source.resolve(source)
    if pictures is not None and not isinstance(result, Source):
        result = Source.of_pictures(Path(result), pictures)
    after = Source.resolve(result)
    names = _names(after, target)
    refuse_own_input((target, *names), before, after)
    if not overwrite and is_there(target):
        raise exists_error(target)
    if window is not None:
        window = replace(window, context_frames=0)
    with (
        after.open() as results,
        before.open(
            window=window, deinterlace=deinterlace, frame_rate=frame_rate, on_change=on_change
        ) as originals,
    ):
        info = results.info
        pairs = _pairs(iter(originals), iter(results), info, mode)
        if writes_pictures(target):
            _write_pictures(pairs, info, target, after, names)
            return
        spec = comparison_spec(info, target, mode=mode, codec=codec, crf=crf)
        write_film(pairs, target, spec, beside=after.beside, segment_frames=SEGMENT_FRAMES)


def comparison_spec(
    info: VideoInfo, destination: Path, *, mode: str, codec: str, crf: float | None = None
) -> EncodeSpec:
    """How a comparison is encoded, checked.

    Args:
        info: Of the result, or of the source with the size of the result.
        destination: Of the comparison.
        mode: One of `MODES`.
        codec: Of the video.
        crf: Its quality.

    Raises:
        VideoError: It cannot be written.
    """
    if mode not in MODES:
        raise VideoError(f"the comparison must be one of {', '.join(MODES)}, got {mode!r}")
    check_destination(destination, codec)
    width = info.width * (2 if mode == "side" else 1)
    opaque = replace(info, has_alpha=False)
    spec = EncodeSpec.from_source(opaque, codec=codec, width=width, height=info.height, crf=crf)
    try:
        check_encoder(spec)
    except VideoError as error:
        remedy = "show it split, not side by side" if mode == "side" else "use a smaller size"
        raise VideoError(f"the comparison cannot be written ({error}); {remedy}") from error
    return spec


def is_there(destination: Path) -> bool:
    """Whether a comparison of this name would replace something: a file, or pictures."""
    if destination.is_dir():
        return any(destination.iterdir())
    if is_pattern(destination) and destination.absolute().parent.is_dir():
        return bool(find_numbered(destination))
    return destination.exists()


def writes_pictures(destination: Path) -> bool:
    """Whether a result or comparison of this name is pictures: one, a sequence or a folder."""
    suffix = destination.suffix.lower()
    return suffix in IMAGE_FORMATS or suffix not in CONTAINERS


def check_comparison(
    info: VideoInfo, destination: Path, *, mode: str, codec: str, is_picture: bool
) -> None:
    """Refuse a comparison that cannot be written, before hours are spent on the result.

    Args:
        info: Of the source, with the size of the result.
        destination: The result.
        mode: One of `MODES`.
        codec: Of the video.
        is_picture: Whether the result is pictures.

    Raises:
        VideoError: It cannot.
    """
    if mode not in MODES:
        raise VideoError(f"the comparison must be one of {', '.join(MODES)}, got {mode!r}")
    if not is_picture:
        comparison_spec(info, comparison_path(destination), mode=mode, codec=codec)


def _pairs(
    before: Iterator[VideoFrame], after: Iterator[VideoFrame], info: VideoInfo, mode: str
) -> Iterator[VideoFrame]:
    import torch

    from ..video.pixels import frame_to_tensor, resize, tensor_to_frame

    index = -1
    for index, frame in enumerate(after):
        partner = next(before, None)
        if partner is None:
            raise VideoError(
                f"the source ends after {index} frames and the result has more; give the file and "
                "the piece of it that the result was made of"
            )
        plain = frame_to_tensor(partner.pixels, torch.device("cpu"))
        plain = tensor_to_frame(resize(plain, info.height, info.width), frame.pixels.dtype)
        yield replace(frame, pixels=_joined(plain, frame.pixels, mode), alpha=None)
    if next(before, None) is not None:
        raise VideoError(
            f"the result ends after {index + 1} frames and the source has more; give the piece of "
            "it that the result was made of"
        )


def _joined(plain: np.ndarray, result: np.ndarray, mode: str) -> np.ndarray:
    if mode == "side":
        return np.concatenate((plain, result), axis=1)
    middle = result.shape[1] // 2
    joined = result.copy()
    joined[:, :middle] = plain[:, :middle]
    joined[:, middle - LINE_PX // 2 : middle + LINE_PX // 2] = np.iinfo(joined.dtype).max
    return joined


def _names(result: Source, target: Path) -> list[Path]:
    """The picture that each picture of the result is shown in, under the same number or name."""
    if not writes_pictures(target):
        return []
    if is_pattern(target):
        return [numbered(target, number) for number in result.numbers]
    if target.suffix.lower() in IMAGE_FORMATS:
        return [target]
    return [target / name for name in distinct(result.pictures, _writable_ending)]


def _writable_ending(picture: Path) -> str:
    suffix = picture.suffix.lower()
    return suffix if suffix in IMAGE_FORMATS else ".png"


def _write_pictures(
    frames: Iterator[VideoFrame], info: VideoInfo, target: Path, result: Source, names: list[Path]
) -> None:
    num_pictures = len(result.pictures)
    if not num_pictures or num_pictures != len(names):
        what = f"has {num_pictures} pictures" if num_pictures else "is a video"
        raise VideoError(
            f"{str(target)!r} holds one picture and the result {what}; name a video, or a "
            "folder or pattern for pictures"
        )
    if target.suffix.lower() not in IMAGE_FORMATS:
        target.mkdir(exist_ok=True)
    for frame, path in zip(frames, names, strict=True):
        height, width, _ = frame.pixels.shape
        kind = path.suffix.lower()
        spec = ImageSpec(suffix=kind, width=width, height=height, bits=info.bit_depth)
        write_atomically(path, ImageEncoder(spec).encode(frame.pixels))
