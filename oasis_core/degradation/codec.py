"""Real video compression in memory, through PyAV's encoders and decoders."""

from __future__ import annotations

from fractions import Fraction

import av
import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from ..video.spec import is_x264_unrepeatable

DECODERS = {"libx264": "h264", "mpeg4": "mpeg4", "libx265": "hevc"}
_X265_QUIET = {"x265-params": "log-level=none:pools=1:frame-threads=1"}
_X264_REPEATABLE = {"x264-params": "asm=AVX2"}


def compress(clip: Tensor, codec: str, quality: float) -> Tensor:
    """Encode and decode a clip at constant quality.

    Constant quality instead of a bit rate: what a rate does depends on the picture size, and the
    same recipe must mean the same damage on a crop and on a whole frame.

    Args:
        clip: `t 3 h w`, float in [0, 1].
        codec: A key of `DECODERS`.
        quality: CRF of libx264 and libx265 (0-51), quantiser of mpeg4 (1-31); higher is worse.

    Returns:
        `t 3 h w`, the same number of frames and size.

    Raises:
        RuntimeError: The encoder is missing or returned another number of frames.
    """
    t, _, h, w = clip.shape
    # yuv420p needs even sizes; 16 keeps the oldest encoders content.
    height, width = max(16, h + h % 2), max(16, w + w % 2)
    padded = torch.nn.functional.pad(clip, (0, width - w, 0, height - h), mode="replicate")
    frames = rearrange((padded.clamp(0, 1) * 255).round().to(torch.uint8), "t c h w -> t h w c")
    encoder = av.CodecContext.create(codec, "w")
    encoder.width, encoder.height, encoder.pix_fmt = width, height, "yuv420p"
    encoder.time_base, encoder.framerate = Fraction(1, 25), Fraction(25)
    # One thread: the bytes depend on the thread count, and trainers run many of these at once.
    encoder.thread_count = 1
    if codec == "mpeg4":
        encoder.options = {"qmin": f"{quality:.0f}", "qmax": f"{quality:.0f}"}
    else:
        encoder.options = {"crf": f"{quality:.2f}", "preset": "veryfast"}
        if codec == "libx265":
            encoder.options = {**encoder.options, **_X265_QUIET}
        elif is_x264_unrepeatable():
            encoder.options = {**encoder.options, **_X264_REPEATABLE}
    packets = []
    for index, pixels in enumerate(frames.contiguous().numpy()):
        frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
        frame.pts = index
        packets += encoder.encode(frame)
    packets += encoder.encode(None)
    decoder = av.CodecContext.create(DECODERS[codec], "r")
    decoder.thread_count = 1
    if encoder.extradata:
        decoder.extradata = encoder.extradata
    decoded = [frame for packet in packets for frame in decoder.decode(packet)]
    decoded += decoder.decode(None)
    if len(decoded) != t:
        raise RuntimeError(f"{codec} returned {len(decoded)} frames for {t}")
    decoded.sort(key=lambda frame: frame.pts)
    pixels = np.stack([frame.to_ndarray(format="rgb24") for frame in decoded])
    result = rearrange(torch.from_numpy(pixels), "t h w c -> t c h w")
    return (result[..., :h, :w].to(clip.device, torch.float32) / 255).contiguous()
