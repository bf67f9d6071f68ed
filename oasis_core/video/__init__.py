"""Video files in and out, through PyAV: reading, encoding segments, and joining them with the sound."""

from .errors import VideoError
from .info import ColorTags, VideoInfo
from .mux import CONTAINERS, MuxReport, check_destination, mux
from .reader import VideoFrame, VideoReader, probe
from .writer import CODECS, SEGMENT_SUFFIX, EncodeSpec, SegmentWriter, check_encoder

__all__ = [
    "CODECS",
    "CONTAINERS",
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
