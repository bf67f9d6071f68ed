"""Names of RAM's visual encoder and of its low-rank additions, and what they are called here.

Source: xinyu1205/recognize-anything (Apache-2.0) and cswry/SeeSR (Apache-2.0): names and
shapes only.
"""

from __future__ import annotations

import re

ENCODER = "visual_encoder."
DERIVED = ("relative_position_index", "attn_mask")
"""Tables that are stored and follow from the sizes."""
BLOCK = {
    "norm1": "norm1",
    "norm2": "norm2",
    "attn.qkv": "qkv",
    "attn.proj": "out",
    "mlp.fc1": "expand",
    "mlp.fc2": "contract",
}


def own_visual_name(name: str) -> str | None:
    """This project's name of a tensor of the encoder or its projection; None if it has none."""
    if name.startswith("image_proj."):
        return "project." + name.removeprefix("image_proj.")
    if not name.startswith(ENCODER):
        return None
    name = name.removeprefix(ENCODER)
    for theirs, ours in (("patch_embed.proj.", "embed."), ("patch_embed.norm.", "norm_in.")):
        if name.startswith(theirs):
            return ours + name.removeprefix(theirs)
    if name in ("norm.weight", "norm.bias"):
        return name.replace("norm", "norm_out")
    merge = re.fullmatch(r"layers\.(\d+)\.downsample\.(norm|reduction)\.(weight|bias)", name)
    if merge:
        part = "reduce" if merge[2] == "reduction" else "norm"
        return f"merges.{merge[1]}.{part}.{merge[3]}"
    block = re.fullmatch(r"layers\.(\d+)\.blocks\.(\d+)\.(.+)", name)
    if block is None:
        return None
    prefix = f"stages.{block[1]}.{block[2]}"
    if block[3] == "attn.relative_position_bias_table":
        return f"{prefix}.bias_table"
    part, _, last = block[3].rpartition(".")
    return f"{prefix}.{BLOCK[part]}.{last}" if part in BLOCK else None


def low_rank_place(name: str) -> tuple[str, str] | None:
    """Which weight a low-rank tensor changes, by this project's name, and whether it is "A" or "B".

    None for a tensor that is none of them.
    """
    match = re.search(r"layers\.(\d+)\.blocks\.(\d+)\.attn\.qkv\.lora_([AB])$", name)
    return None if match is None else (f"stages.{match[1]}.{match[2]}.qkv.weight", match[3])
