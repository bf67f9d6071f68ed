"""A pack for the tests' ComfyUI: values that other people's nodes may hand over."""

import dataclasses
import io
import time
from pathlib import Path

import comfy.model_management
import folder_paths
import torch
from comfy_api.input_impl import VideoFromComponents, VideoFromFile
from comfy_execution.utils import get_executing_context

from .random_values import RandomImages, RandomMask, RandomVideo

KINDS = {
    "nan": lambda: torch.full((2, 24, 32, 3), float("nan")),
    "infinite": lambda: torch.full((2, 24, 32, 3), float("inf")),
    "no frames": lambda: torch.zeros(0, 24, 32, 3),
    "gray": lambda: torch.full((2, 24, 32, 1), 0.5),
    "one picture": lambda: torch.full((24, 32, 3), 0.5),
    "one pixel": lambda: torch.full((2, 1, 1, 3), 0.5),
    "rgba": lambda: torch.full((2, 24, 32, 4), 0.5),
    "half": lambda: torch.full((2, 24, 32, 3), 0.5, dtype=torch.float16),
    "beyond": lambda: torch.linspace(-1, 2, 2 * 24 * 32 * 3).reshape(2, 24, 32, 3),
    "strided": lambda: torch.full((3, 2, 24, 32), 0.5).permute(1, 2, 3, 0),
}


class OddImages:
    """One of the kinds as IMAGE."""

    CATEGORY = "tests"
    FUNCTION = "make"
    RETURN_TYPES = ("IMAGE",)

    @classmethod
    def INPUT_TYPES(cls):  # noqa: N802 - ComfyUI's name
        return {"required": {"kind": (list(KINDS),)}}

    def make(self, kind):
        return (KINDS[kind](),)


class Cropped(VideoFromFile):
    """A file whose left half is shown, as the crop of ComfyUI after 0.30 says it."""

    def has_pending_frame_edits(self):
        return True

    def get_components(self):
        whole = super().get_components()
        left = whole.images[:, :, : whole.images.shape[2] // 2]
        return dataclasses.replace(whole, images=left)


class Graded(VideoFromComponents):
    """Frames that are HDR, as Create Video after 0.30 says it."""

    def __init__(self, path, color_space):
        super().__init__(VideoFromFile(path).get_components())
        self._color_space = color_space

    def get_color_space(self):
        return self._color_space

    def get_bit_depth(self):
        return 10


VIDEO_KINDS = {
    "HLG frames": lambda path: Graded(path, "HDR"),
    "PQ frames": lambda path: Graded(path, "HDR PQ"),
    "cropped": Cropped,
    "in memory": lambda path: VideoFromFile(io.BytesIO(Path(path).read_bytes())),
}


class OddVideo:
    """A file of the input folder as one of the kinds of VIDEO."""

    CATEGORY = "tests"
    FUNCTION = "make"
    RETURN_TYPES = ("VIDEO",)

    @classmethod
    def INPUT_TYPES(cls):  # noqa: N802 - ComfyUI's name
        return {"required": {"file": ("STRING",), "kind": (list(VIDEO_KINDS),)}}

    def make(self, file, kind):
        return (VIDEO_KINDS[kind](folder_paths.get_annotated_filepath(file)),)


class RandomConditioning:
    """CONDITIONING of the shape that the text encoder of Wan 2.1 gives, without its 6 GB."""

    CATEGORY = "tests"
    FUNCTION = "make"
    RETURN_TYPES = ("CONDITIONING",)

    @classmethod
    def INPUT_TYPES(cls):  # noqa: N802 - ComfyUI's name
        return {"required": {"seed": ("INT",)}}

    def make(self, seed):
        generator = torch.Generator().manual_seed(seed)
        return ([[torch.randn(1, 8, 4096, generator=generator), {}]],)


LOOK = comfy.model_management.throw_exception_if_processing_interrupted
LOOKS_FILE = "looks.txt"


class CancelAt:
    """Passes images on and cancels when one node has looked for it so many times; 0 never does.

    How often it looked stands in a file of the temporary folder, with the longest time in seconds
    between two looks.
    """

    CATEGORY = "tests"
    FUNCTION = "make"
    RETURN_TYPES = ("IMAGE",)

    @classmethod
    def INPUT_TYPES(cls):  # noqa: N802 - ComfyUI's name
        (kind,) = cls.RETURN_TYPES
        return {"required": {"value": (kind,), "node": ("STRING",), "looks": ("INT",)}}

    def make(self, value, node, looks):
        management = comfy.model_management
        file = Path(folder_paths.get_temp_directory()) / LOOKS_FILE
        file.unlink(missing_ok=True)
        count, longest_s, before_s = 0, 0.0, None

        def counted():
            nonlocal count, longest_s, before_s
            context = get_executing_context()
            if context is not None and context.node_id == node:
                now_s, count = time.monotonic(), count + 1
                longest_s = max(longest_s, now_s - (before_s or now_s))
                before_s = now_s
                file.write_text(f"{count} {longest_s:.3f}")
                if count == looks:
                    management.interrupt_current_processing()
            LOOK()

        management.throw_exception_if_processing_interrupted = counted
        return (value,)


class CancelVideoAt(CancelAt):
    """The same for a VIDEO."""

    RETURN_TYPES = ("VIDEO",)


NODE_CLASS_MAPPINGS = {
    "CancelAt": CancelAt,
    "CancelVideoAt": CancelVideoAt,
    "OddImages": OddImages,
    "OddVideo": OddVideo,
    "RandomConditioning": RandomConditioning,
    "RandomImages": RandomImages,
    "RandomMask": RandomMask,
    "RandomVideo": RandomVideo,
}
