"""Opening a video file, and saying in one sentence why it cannot be opened."""

from __future__ import annotations

import struct
from contextlib import nullcontext
from pathlib import Path
from typing import BinaryIO

import av

from ..remote import RemoteError, RemoteFile, RemoteReader
from .errors import AV_ERRORS, VideoError, reason
from .heif import may_be_photo, read_photo
from .info import is_picture

MAX_SIDE_PX = 16_384
MAX_PIXELS = 1 << 28  # libavutil refuses more by itself, and then reports no size at all

_EBML = b"\x1a\x45\xdf\xa3"
_MATROSKA_SEGMENT = b"\x18\x53\x80\x67"
_MP4_BOXES = (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot")


def open_video(
    path: Path | RemoteFile, *, allow_truncated: bool = False
) -> tuple[av.container.InputContainer, av.VideoStream]:
    """Open a file and find its film: the first video stream that is no cover picture.

    Args:
        path: the file.
        allow_truncated: read what is there of a file that ends before its own headers say.

    Raises:
        VideoError: the file cannot be used.
    """
    file = _open_remote(path) if isinstance(path, RemoteFile) else None
    size = check_file(path) if file is None else file.size
    try:
        if not allow_truncated:
            _check_complete(path, size, file)
        if file is not None:
            file.seek(0)
        # The absolute path keeps a name such as `concat:a.mp4` from being taken for a protocol, and
        # the whitelist keeps a playlist in disguise from reaching the network, and one that came
        # over the network from reaching files here.
        container = av.open(
            str(path.absolute()) if file is None else file,
            options={"protocol_whitelist": "file,crypto,data" if file is None else "crypto,data"},
            metadata_errors="replace",
        )
    except VideoError:
        raise
    except RemoteError as error:
        raise VideoError(str(error)) from error
    except AV_ERRORS as error:
        raise _unreadable(path, error) from error
    try:
        return container, _film(path, container)
    except BaseException:
        container.close()
        raise


def is_seekable(container: av.container.InputContainer) -> bool:
    """Return whether the format's index finds a key frame at or before a time.

    Other formats are read from the beginning.

    Args:
        container: an opened file.
    """
    return any(name in container.format.name for name in ("mov", "matroska"))


def check_size(path: Path, size: tuple[int, int]) -> None:
    """Refuse a picture of a size that nobody means.

    Args:
        path: for the sentence.
        size: (width, height) in pixels.

    Raises:
        VideoError: it is too large.
    """
    if max(size) > MAX_SIDE_PX or size[0] * size[1] > MAX_PIXELS:
        raise VideoError(
            f"{str(path)!r} declares {size[0]}x{size[1]} pixels, but at most {MAX_SIDE_PX} on a "
            f"side and {MAX_PIXELS} in all are read; scale or crop it first"
        )


def _open_remote(path: RemoteFile) -> RemoteReader:
    try:
        file = path.open()
    except FileNotFoundError as error:
        raise VideoError(
            f"{str(path)!r} does not exist or needs other rights; check the address"
        ) from error
    except RemoteError as error:
        raise VideoError(str(error)) from error
    if file.size == 0:
        raise VideoError(f"{str(path)!r} is empty (0 bytes); copy it there again")
    return file


def check_file(path: Path) -> int:
    """Return the size of a file in bytes, or say why it cannot be read.

    Args:
        path: what the user named.

    Raises:
        VideoError: it is missing, empty, a folder or not readable.
    """
    if path.is_dir():
        raise VideoError(f"{str(path)!r} is a folder; name one video file inside it")
    if not path.exists():
        raise VideoError(f"{str(path)!r} does not exist; check the name and the folder")
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            file.read(1)
    except OSError as error:
        raise VideoError(
            f"{str(path)!r} cannot be read ({reason(error)}); check its permissions"
        ) from error
    if size == 0:
        raise VideoError(f"{str(path)!r} is empty (0 bytes); copy or download it again")
    return size


def _unreadable(path: Path | RemoteFile, error: BaseException) -> VideoError:
    with path.open("rb") as file:
        head = file.read(12)
    if head[4:8] in _MP4_BOXES:
        return VideoError(
            f"{str(path)!r} is an incomplete MP4 or MOV: its index (the 'moov' box) is missing or "
            f"damaged ({reason(error)}); it was cut off while recorded or copied: copy it again or "
            "repair it"
        )
    return VideoError(
        f"{str(path)!r} is not a video that FFmpeg can read ({reason(error)}); "
        "check that it is a real .mp4, .mkv, .mov or similar file"
    )


def _film(path: Path | RemoteFile, container: av.container.InputContainer) -> av.VideoStream:
    films = [s for s in container.streams.video if not is_picture(s)]
    if container.format.name == "tty":  # FFmpeg plays any .txt file as ANSI art
        raise VideoError(f"{str(path)!r} is a text file; give a video file")
    if not films:
        kinds = {"cover picture" if s.type == "video" else s.type for s in container.streams}
        raise VideoError(
            f"{str(path)!r} has no video stream (found: {', '.join(sorted(kinds)) or 'nothing'}); "
            "give a file with a moving picture"
        )
    photo = read_photo(path) if may_be_photo(container) else None
    if photo is not None:  # its streams are tiles, thumbnails and so on
        films = [s for s in films if s.id == photo.tiles[0]] or films
    elif may_be_photo(container):  # a sequence, and a still for those who cannot play it
        films = [s for s in films if s.frames > 1] or films
    stream = films[0]
    context = stream.codec_context
    if context is None:
        raise VideoError(
            f"{str(path)!r} uses a video codec this FFmpeg build cannot decode; "
            "convert it to H.264 or H.265 first"
        )
    width, height = context.width, context.height
    if max(width, height) > MAX_SIDE_PX or width * height > MAX_PIXELS:
        raise VideoError(
            f"{str(path)!r} declares {width}x{height} pixels, but at most {MAX_SIDE_PX} on a side "
            f"and {MAX_PIXELS} in all are read; scale or crop it first"
        )
    # With several slice threads FFmpeg's H.264 decoder no longer flags the frames it had to conceal
    # (seen in FFmpeg 8.0), and frame threads hold back as many frames as there are threads.
    context.thread_count = 1
    # Frames that lack a reference come out (flagged) instead of vanishing.
    context.options = {"flags": "+output_corrupt"}
    return stream


def _check_complete(path: Path | RemoteFile, size: int, opened: BinaryIO | None) -> None:
    """Refuse a file shorter than its headers promise, before hours are spent on it."""
    with path.open("rb") if opened is None else nullcontext(opened) as file:
        file.seek(0)
        head = file.read(12)
        if head[:4] == _EBML:
            declared = _matroska_size(file)
        elif head[:4] == b"RIFF" and head[8:11] == b"AVI":
            declared = struct.unpack("<I", head[4:8])[0] + 8
        elif head[4:8] in _MP4_BOXES:
            declared = _mp4_size(file, size)
        else:
            return
    if declared > size:
        raise VideoError(
            f"{str(path)!r} is truncated: its headers declare {declared:,} bytes but it has "
            f"{size:,}; copy or download it again"
        )


def _mp4_size(file: BinaryIO, size: int) -> int:
    position = 0
    while position + 8 <= size:
        file.seek(position)
        header = file.read(16)
        length = struct.unpack(">I", header[:4])[0]
        if length == 1 and len(header) == 16:
            length = struct.unpack(">Q", header[8:16])[0]
        if length < 8:  # 0: "to the end of the file"; less is no box
            break
        position += length
    return position


def _matroska_size(file: BinaryIO) -> int:
    file.seek(0)
    while True:
        name = file.read(4)
        length, is_known = _vint(file)
        if name == _MATROSKA_SEGMENT:
            return file.tell() + length if is_known else 0
        if name != _EBML or not is_known:
            return 0
        file.seek(length, 1)


def _vint(file: BinaryIO) -> tuple[int, bool]:
    """Read an EBML length: its value, and whether it is known (all ones means "unknown")."""
    first = file.read(1)
    if not first or first[0] == 0:
        return 0, False
    num_bytes = 9 - first[0].bit_length()
    value = int.from_bytes(
        bytes([first[0] & (0xFF >> num_bytes)]) + file.read(num_bytes - 1), "big"
    )
    return value, value != (1 << (7 * num_bytes)) - 1
