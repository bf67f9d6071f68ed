"""What a decoded frame carries beside its pixels, and a name for each kind that is not kept."""

from __future__ import annotations

import logging
from fractions import Fraction

import av
import av.filter

log = logging.getLogger(__name__)

# Decoders of pictures with named colour profiles: PyAV 18.1 frees the name twice, in
# `SideData.__init__` and in FFmpeg, and the process ends. FFmpeg's filter takes the profile away.
NAMING_CODECS = ("png", "apng")
_PROFILE = "ICC_PROFILE"
# Kinds that PyAV 18.1 has no name for; with one of them on a frame it shows none at all.
_UNNAMED = {
    28: "LCEVC", 29: "VIEW_ID", 30: "THREE_D_REFERENCE_DISPLAYS", 31: "EXIF",
    32: "DYNAMIC_HDR_SMPTE_2094_APP5",
}  # fmt: skip
_MOST_KINDS = 40
_HANDLED = frozenset(
    ("DISPLAYMATRIX", "MASTERING_DISPLAY_METADATA", "CONTENT_LIGHT_LEVEL", "SKIP_SAMPLES")
)
# About the decoder, not the film.
_INTERNAL = frozenset(
    ("MOTION_VECTORS", "VIDEO_ENC_PARAMS", "VIDEO_HINT", "REGIONS_OF_INTEREST", "VIEW_ID")
)
_LINES = {
    "A53_CC": "closed captions in the picture (CEA-608 or 708): not written",
    "DYNAMIC_HDR_PLUS": "HDR10+ dynamic metadata: not written, it was made for other pixels",
    "DYNAMIC_HDR_VIVID": "HDR Vivid metadata: not written, it was made for other pixels",
    "DYNAMIC_HDR_SMPTE_2094_APP5": "dynamic HDR metadata (SMPTE 2094-50): not written",
    "DOVI_RPU_BUFFER": "Dolby Vision metadata: not written, it was made for other pixels",
    "DOVI_METADATA": "Dolby Vision metadata: not written, it was made for other pixels",
    "AMBIENT_VIEWING_ENVIRONMENT": "ambient viewing environment: not written",
    "STEREO3D": "stereo 3D marking: not written; both eyes are upscaled as one picture",
    "SPHERICAL": "360-degree (spherical) marking: not written",
    "THREE_D_REFERENCE_DISPLAYS": "3D reference displays: not written",
    "LCEVC": "LCEVC enhancement layer: not decoded, the base layer is upscaled",
    "AFD": "active format description (AFD): not written",
    "PANSCAN": "pan and scan rectangle: not written",
    "GOP_TIMECODE": "timecode in the coded pictures: not written",
    "S12M_TIMECODE": "timecode in the coded pictures (SMPTE 12M): not written",
    "FILM_GRAIN_PARAMS": "film grain parameters: not written, the grain is in the pixels",
    "ICC_PROFILE": "colour profile (ICC): a video has no place for it",
    "EXIF": "camera data (EXIF) of frames: not written",
    "SEI_UNREGISTERED": "user data in the coded pictures (SEI): not written",
    "DETECTION_BBOXES": "detected regions: not written",
    "DOWNMIX_INFO": "downmix information: not written",
}
# Encoders' own notes, which no film needs: x264 and x265 (version and options).
_ENCODER_NOTES = (
    bytes.fromhex("dc45e9bde6d948b7962cd820d923eeef"),
    bytes.fromhex("2ca2de09b51747dbbb55a4fe7fc2fc4e"),
)


def side_data_of(frame: av.VideoFrame, codec: str = "") -> dict[str, bytes]:
    """Return all of a frame's side data by FFmpeg's name of the kind.

    What PyAV cannot show is there without content.

    Args:
        frame: decoded.
        codec: FFmpeg's name of its codec.
    """
    if codec in NAMING_CODECS:
        found = {_PROFILE: b""} if _has(frame, _PROFILE) else {}
        clean = _through(frame, ("sidedata", f"mode=delete:type={_PROFILE}"))
        return found | ({} if clean is None else side_data_of(clean))
    if (shown := shown_side_data(frame)) is not None:
        return shown
    numbers = range(min(_UNNAMED), _MOST_KINDS)
    found = {_UNNAMED.get(n, f"kind {n}"): b"" for n in numbers if _has(frame, str(n))}
    filters = [("sidedata", f"mode=delete:type={number}") for number in numbers]
    clean = _through(frame, *filters)
    return found | ({} if clean is None else shown_side_data(clean) or {})


def shown_side_data(frame: av.VideoFrame) -> dict[str, bytes] | None:
    """Return the side data that PyAV shows; None where it fails on a kind that it does not know.

    Args:
        frame: decoded, of none of `NAMING_CODECS`.
    """
    try:
        return {data.type.name: bytes(data) for data in frame.side_data}
    except ValueError as error:
        log.debug("side data: %s", error)
        return None


def _has(frame: av.VideoFrame, kind: str) -> bool:
    return _through(frame, ("sidedata", f"mode=select:type={kind}")) is not None


def _through(frame: av.VideoFrame, *filters: tuple[str, str]) -> av.VideoFrame | None:
    """Return a frame after some filters that leave pixels alone; None if they drop it."""
    graph = av.filter.Graph()
    frame.time_base = frame.time_base or Fraction(1, 25)
    source = f"video_size={frame.width}x{frame.height}:pix_fmt={frame.format.name}"
    try:
        nodes = [
            graph.add("buffer", f"{source}:time_base={frame.time_base}:pixel_aspect=1/1"),
            *(graph.add(name, options) for name, options in filters),
            graph.add("buffersink"),
        ]
        graph.link_nodes(*nodes)
        graph.configure()
        graph.push(frame)
        return graph.pull()
    except (av.error.FFmpegError, ValueError) as error:
        log.debug("side data cannot be filtered: %s", error)
        return None


def lines_about(kinds: dict[str, bytes]) -> dict[str, str]:
    """Return a line for each kind of side data that is not kept, by FFmpeg's name of it.

    Args:
        kinds: as from `side_data_of`.
    """
    lines = {}
    for kind, content in kinds.items():
        is_note = kind == "SEI_UNREGISTERED" and content.startswith(_ENCODER_NOTES)
        # MPEG-2 always has one; encoders that know no better begin at 0.
        is_zero = kind == "GOP_TIMECODE" and not any(content)
        if kind in _HANDLED or kind in _INTERNAL or is_note or is_zero:
            continue
        lines[kind] = _LINES.get(kind, f"side data {kind.lower()}: not written")
    return lines


class Carried:
    """Finds kinds of side data that a film's first frame did not have.

    Args:
        first: side data of the first frame.
        codec: FFmpeg's name of the film's codec.
    """

    def __init__(self, first: dict[str, bytes], codec: str) -> None:
        self._known = {*lines_about(first)}
        self._is_shown = codec not in NAMING_CODECS

    def new_in(self, frame: av.VideoFrame) -> list[str]:
        """Return a line for each kind that is new and not kept, once."""
        shown = shown_side_data(frame) if self._is_shown else None
        self._is_shown = shown is not None
        lines = lines_about(shown or {})
        new = [line for kind, line in lines.items() if kind not in self._known]
        self._known |= lines.keys()
        return new
