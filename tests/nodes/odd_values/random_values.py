"""Values of every shape, size and kind, drawn by a seed."""

import io
from fractions import Fraction
from random import Random

import folder_paths
import torch
from comfy_api.input_impl import VideoFromComponents, VideoFromFile
from comfy_api.util import VideoComponents

SIDES_PX = (1, 2, 3, 7, 8, 9, 16, 17, 32, 33, 48)
COUNTS = (0, 1, 1, 2, 3, 5)
CHANNELS = (1, 2, 3, 3, 3, 3, 4, 5)
DTYPES = (torch.float32,) * 4 + (torch.float16, torch.bfloat16, torch.float64, torch.uint8)
RATES = (24.0, 23.976, 29.97, 1.0, 119.88, 0.1, 1 / 3, 1000.0, Fraction(30000, 1001), 16.666)
SAMPLE_RATES = (8000, 11025, 44100, 48000, 96000)


def images_of(seed):
    """IMAGE as other packs may hand it over, right or wrong: a batch, a mask, an empty one."""
    random = Random(seed)
    height, width = random.choice(SIDES_PX), random.choice(SIDES_PX)
    shape = [random.choice(COUNTS), height, width, random.choice(CHANNELS)]
    if random.random() < 0.08:
        shape = shape[1:3]  # a mask of one picture
    elif random.random() < 0.1:
        shape = shape[:3]  # a mask
    images = torch.rand(shape, generator=torch.Generator().manual_seed(seed))
    images = _valued(images, random)
    dtype = random.choice(DTYPES)
    images = (images * 255 if dtype is torch.uint8 else images).to(dtype)
    if images.ndim == 4 and random.random() < 0.2:
        images = images.permute(3, 1, 2, 0).contiguous().permute(3, 1, 2, 0)
    return images


def _valued(images, random):
    kind = random.choice(("noise",) * 6 + ("flat", "beyond", "nan", "one nan", "infinite"))
    if kind == "flat":
        return images * 0 + random.choice((0.0, 0.5, 1.0))
    if kind == "beyond":
        return images * 4 - 2
    if kind == "nan":
        return images * float("nan")
    if images.numel() and kind in ("one nan", "infinite"):
        value = float("nan" if kind == "one nan" else "inf")
        images.view(-1)[random.randrange(images.numel())] = value
    return images


def good_images_of(seed):
    """IMAGE that every node of ComfyUI takes."""
    random = Random(seed)
    shape = random.randint(1, 4), random.choice(SIDES_PX[3:]), random.choice(SIDES_PX[3:]), 3
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def audio_of(random):
    """AUDIO, or None: of any rate, from no sample at all to longer than the pictures."""
    if random.random() < 0.4:
        return None
    rate = random.choice(SAMPLE_RATES)
    length = random.choice((0, 1, 100, rate // 7, rate))
    wave = torch.rand(1, random.choice((1, 2)), length) * 2 - 1
    return {"waveform": wave, "sample_rate": rate}


def video_of(seed):
    """VIDEO of every source: a file, whole or trimmed or in memory, and frames with sound."""
    random = Random(seed)
    path = folder_paths.get_annotated_filepath("small.mp4")
    kind = random.choice(("file", "trimmed", "memory", "frames", "frames", "odd frames"))
    if kind == "file":
        return VideoFromFile(path)
    if kind == "memory":
        with open(path, "rb") as file:  # noqa: PTH123 - a string from ComfyUI
            return VideoFromFile(io.BytesIO(file.read()))
    if kind == "trimmed":
        trim = random.choice((0.0, 0.1, 0.3, 5.0)), random.choice((0.0, 0.01, 0.1, 9.0))
        return _trimmed(path, *trim)
    images = images_of(seed) if kind == "odd frames" else good_images_of(seed)
    rate = random.choice(RATES)
    return VideoFromComponents(
        VideoComponents(images=images, audio=audio_of(random), frame_rate=Fraction(rate))
    )


def _trimmed(path, start_s, duration_s):
    try:
        return VideoFromFile(path, start_time=start_s, duration=duration_s)
    except TypeError:  # ComfyUI before 0.14 cannot trim
        return VideoFromFile(path)


class RandomImages:
    """IMAGE by a seed."""

    CATEGORY = "tests"
    FUNCTION = "make"
    RETURN_TYPES = ("IMAGE",)

    @classmethod
    def INPUT_TYPES(cls):  # noqa: N802 - ComfyUI's name
        return {"required": {"seed": ("INT", {"max": 1 << 32})}}

    def make(self, seed):
        return (images_of(seed),)


class RandomMask(RandomImages):
    """MASK by a seed: of one picture, of a batch, or what is none."""

    RETURN_TYPES = ("MASK",)

    def make(self, seed):
        images = images_of(seed + 7)
        return (images[..., 0] if images.ndim == 4 else images,)


class RandomVideo(RandomImages):
    """VIDEO by a seed."""

    RETURN_TYPES = ("VIDEO",)

    def make(self, seed):
        return (video_of(seed),)
