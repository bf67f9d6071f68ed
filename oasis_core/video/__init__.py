"""Video and picture files in and out, through PyAV: reading, encoding segments, joining them."""

from ..codecs import ALPHA_CODECS, CODECS, HDR_CODECS, PRESETS
from .changes import ChangeError
from .clip import ClipSource
from .destination import CONTAINERS, check_destination
from .errors import VideoError
from .frame import VideoFrame
from .images import ImageReader
from .info import ColorTags, VideoInfo
from .mux import MuxReport, mux
from .mux_trial import trial_mux
from .names import IMAGE_SUFFIXES, VIDEO_SUFFIXES, is_animated
from .piece import TimeWindow
from .rates import nearest_rate
from .reader import VideoReader
from .sources import Source, count_frames, has_streams, list_images, open_source, probe
from .spec import EncodeSpec, available_codecs, check_encoder
from .writer import SEGMENT_SUFFIX, SegmentWriter

__all__ = [
    "ALPHA_CODECS",
    "CODECS",
    "CONTAINERS",
    "HDR_CODECS",
    "IMAGE_SUFFIXES",
    "PRESETS",
    "SEGMENT_SUFFIX",
    "VIDEO_SUFFIXES",
    "ChangeError",
    "ClipSource",
    "ColorTags",
    "EncodeSpec",
    "ImageReader",
    "MuxReport",
    "SegmentWriter",
    "Source",
    "TimeWindow",
    "VideoError",
    "VideoFrame",
    "VideoInfo",
    "VideoReader",
    "available_codecs",
    "check_destination",
    "check_encoder",
    "count_frames",
    "has_streams",
    "is_animated",
    "list_images",
    "mux",
    "nearest_rate",
    "open_source",
    "probe",
    "trial_mux",
]
