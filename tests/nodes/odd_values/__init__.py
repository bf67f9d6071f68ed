"""A pack for the tests' ComfyUI: images that other people's nodes may hand over."""

import torch

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


NODE_CLASS_MAPPINGS = {"OddImages": OddImages}
