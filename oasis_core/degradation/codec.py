"""Real video compression in memory, through PyAV's encoders and decoders."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction

import av
import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from ..codecs import X265_LEAST_CUTREE_WIDTH, is_x264_unrepeatable

DECODERS = {"libx264": "h264", "mpeg4": "mpeg4", "libx265": "hevc", "libvpx-vp9": "vp9"}
_X265_QUIET = {"x265-params": "log-level=none:pools=1:frame-threads=1"}
_X264_REPEATABLE = {"x264-params": "asm=AVX2"}
# No look-ahead and no hidden frames: one packet a frame, at the speed of the others.
_VP9_FAST = {"deadline": "realtime", "cpu-used": "8", "lag-in-frames": "0", "b": "0"}


# Accurate rounding, full chroma in and out, bicubic (swscale.h): without them each conversion back
# to RGB truncates, which darkens the picture by one to two levels that no player would show.
_EXACT = 0x40000 | 0x2000 | 0x4000 | 4


def _options(codec: str, quality: float) -> dict[str, str]:
    """Encoder options for constant quality."""
    if codec == "mpeg4":
        return {"qmin": f"{quality:.0f}", "qmax": f"{quality:.0f}"}
    if codec == "libvpx-vp9":
        return {"crf": f"{quality:.0f}", **_VP9_FAST}
    options = {"crf": f"{quality:.2f}", "preset": "veryfast"}
    if codec == "libx265":
        return {**options, **_X265_QUIET}
    return {**options, **_X264_REPEATABLE} if is_x264_unrepeatable() else options


def is_available(codec: str) -> bool:
    """Whether this PyAV can encode and decode with a key of `DECODERS`."""
    try:
        av.Codec(codec, "w")
        av.Codec(DECODERS[codec], "r")
    except (KeyError, ValueError, av.FFmpegError):
        return False
    return True


def compress(
    clip: Tensor, codec: str, quality: float, on_frame: Callable[[float], None] | None = None
) -> Tensor:
    """Encode and decode a clip at constant quality.

    Constant quality instead of a bit rate: what a rate does depends on the picture size, and the
    same recipe must mean the same damage on a crop and on a whole frame.

    Args:
        clip: `t 3 h w`, float in [0, 1].
        codec: A key of `DECODERS`.
        quality: CRF of libx264 and libx265 (0-51) and libvpx-vp9 (0-63), quantiser of mpeg4
            (1-31); higher is worse.
        on_frame: Called every frame with how many are done, halves for the way there and back; may
            raise to stop.

    Returns:
        `t 3 h w`, the same number of frames and size.

    Raises:
        RuntimeError: The encoder is missing or returned another number of frames.
    """
    return from_pixels(compress_pixels(to_pixels(clip), codec, quality, on_frame), clip)


def to_pixels(clip: Tensor) -> np.ndarray:
    """A clip `t 3 h w` in [0, 1] as `t h w 3` uint8."""
    frames = (clip.clamp(0, 1) * 255).round().to(torch.uint8)
    return rearrange(frames, "t c h w -> t h w c").contiguous().cpu().numpy()


def from_pixels(pixels: np.ndarray, like: Tensor) -> Tensor:
    """`t h w 3` uint8 as a clip `t 3 h w` float32 in [0, 1] on the device of another."""
    clip = rearrange(torch.from_numpy(pixels), "t h w c -> t c h w")
    return (clip.to(like.device, torch.float32) / 255).contiguous()


def compress_pixels(
    frames: np.ndarray, codec: str, quality: float, on_frame: Callable[[float], None] | None = None
) -> np.ndarray:
    """`compress` on `t h w 3` uint8; plain arrays, so that another process can do it."""
    t, h, w, _ = frames.shape
    # yuv420p needs even sizes; 16 keeps the oldest encoders content. Padded for x265's cutree, not
    # encoded without it: a crop must be damaged as a whole frame is.
    least_width = X265_LEAST_CUTREE_WIDTH if codec == "libx265" else 16
    height, width = max(16, h + h % 2), max(least_width, w + w % 2)
    padded = np.pad(frames, ((0, 0), (0, height - h), (0, width - w), (0, 0)), mode="edge")
    encoder = av.CodecContext.create(codec, "w")
    encoder.width, encoder.height, encoder.pix_fmt = width, height, "yuv420p"
    encoder.time_base, encoder.framerate = Fraction(1, 25), Fraction(25)
    # One thread: the bytes depend on the thread count, and trainers run many of these at once.
    encoder.thread_count = 1
    encoder.options = _options(codec, quality)
    packets = []

    def tell(done: float) -> None:
        if on_frame is not None:
            on_frame(done)

    for index, pixels in enumerate(padded):
        tell(index / 2)
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
        frame = frame.reformat(format="yuv420p", interpolation=_EXACT)
        frame.pts = index
        packets += encoder.encode(frame)
    for packet in encoder.encode_lazy(None):  # one by one: a look-ahead may hold many
        tell(t / 2)
        packets.append(packet)
    decoder = av.CodecContext.create(DECODERS[codec], "r")
    decoder.thread_count = 1
    if encoder.extradata:
        decoder.extradata = encoder.extradata
    decoded = []
    for packet in [*packets, None]:
        tell((t + len(decoded)) / 2)
        decoded += decoder.decode(packet)
    if len(decoded) != t:
        raise RuntimeError(f"{codec} returned {len(decoded)} frames for {t}")
    decoded.sort(key=lambda frame: frame.pts)
    shown = []
    for frame in decoded:
        tell(t)
        shown.append(frame.reformat(format="rgb24", interpolation=_EXACT).to_ndarray())
    return np.stack(shown)[:, :h, :w]
