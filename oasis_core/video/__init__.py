"""Video files in and out, through PyAV: reading, encoding segments, joining them with the sound."""

from .errors import VideoError
from .info import ColorTags, VideoInfo
from .mux import CONTAINERS, MuxReport, check_destination, mux
from .reader import VideoFrame, VideoReader, probe
from .spec import CODECS, PRESETS, EncodeSpec, check_encoder
from .writer import SEGMENT_SUFFIX, SegmentWriter

__all__ = [
    "CODECS",
    "CONTAINERS",
    "PRESETS",
    "SEGMENT_SUFFIX",
    "ColorTags",
    "EncodeSpec",
    "MuxReport",
    "SegmentWriter",
    "VideoError",
    "VideoFrame",
    "VideoInfo",
    "VideoReader",
    "check_destination",
    "check_encoder",
    "mux",
    "probe",
]
