"""Pictures for people: encoded frames, labelled-by-the-reader strips, crops worth looking at."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from fractions import Fraction

import av
import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

GAP_PX = 4
CROP_GRID_PX = 16


def encode_picture(image: Tensor, *, is_lossless: bool = True) -> bytes:
    """A picture `3 h w` in [0, 1] as PNG, or as JPEG of high quality, through PyAV."""
    pixels = (image.float().clamp(0, 1) * 255).round().to(torch.uint8)
    array = rearrange(pixels, "c h w -> h w c").contiguous().cpu().numpy()
    encoder = av.CodecContext.create("png" if is_lossless else "mjpeg", "w")
    encoder.height, encoder.width = array.shape[:2]
    encoder.pix_fmt = "rgb24" if is_lossless else "yuvj444p"
    encoder.time_base = Fraction(1, 25)
    if not is_lossless:
        encoder.options = {"qmin": "2", "qmax": "2"}
    frame = av.VideoFrame.from_ndarray(array, format="rgb24").reformat(format=encoder.pix_fmt)
    return b"".join(bytes(packet) for packet in [*encoder.encode(frame), *encoder.encode(None)])


def data_url(image: Tensor, *, is_lossless: bool = True) -> str:
    """A picture `3 h w` in [0, 1] as text that an HTML page can hold."""
    kind = "png" if is_lossless else "jpeg"
    data = base64.b64encode(encode_picture(image, is_lossless=is_lossless)).decode()
    return f"data:image/{kind};base64,{data}"


def strip(images: Sequence[Tensor]) -> Tensor:
    """Pictures `3 h w` of one height side by side, with a white gap; `3 h w`."""
    gap = torch.ones(3, images[0].shape[1], GAP_PX)
    pieces = [piece for image in images for piece in (image.float().cpu(), gap)]
    return torch.cat(pieces[:-1], dim=2)


def enlarge(image: Tensor, height: int, width: int) -> Tensor:
    """Show `3 h w` in another size pixel by pixel (nearest)."""
    return F.interpolate(image[None].float(), size=(height, width), mode="nearest-exact")[0]


def busiest_crop(signal: Tensor, side_px: int) -> tuple[int, int]:
    """Where a square of this side holds most of a signal.

    Args:
        signal: `h w`, not negative.
        side_px: Side of the square; larger than the picture counts as the picture.

    Returns:
        (top, left) in pixels.
    """
    height, width = signal.shape
    window = (min(side_px, height), min(side_px, width))
    sums = F.avg_pool2d(signal[None, None].float(), window, stride=CROP_GRID_PX)[0, 0]
    index = int(sums.flatten().argmax())
    row, column = divmod(index, sums.shape[1])
    return row * CROP_GRID_PX, column * CROP_GRID_PX


def detail(image: Tensor) -> Tensor:
    """How much a picture `3 h w` changes from pixel to pixel, `h w`."""
    gray = image.float().mean(0)
    change = torch.zeros_like(gray)
    change[:, :-1] += gray.diff(dim=1).abs()
    change[:-1] += gray.diff(dim=0).abs()
    return change


def time_slice(clip: Tensor, column: int, top: int, height: int) -> Tensor:
    """One column of pixels through time, `3 height t`: flicker shows as unevenness."""
    return rearrange(clip[:, :, top : top + height, column], "t c h -> c h t")
