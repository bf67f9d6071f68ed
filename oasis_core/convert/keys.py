"""Names of the public Wan2.1, TAEHV and FlashVSR tensors, and what they are called here.

Files come with the names of the original repository (ComfyUI keeps them, some with a prefix) or
with those of diffusers. Every name is first brought to the original form, then to this project's.

Source: Wan-Video/Wan2.1 (Apache-2.0), huggingface/diffusers (Apache-2.0), madebyollin/taehv (MIT)
and OpenImagingLab/FlashVSR (Apache-2.0): names and shapes only.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

PREFIX = "model.diffusion_model."

Rules = tuple[tuple[str, str], ...]

# diffusers to original

DIFFUSERS_TRANSFORMER: Rules = (
    (r"condition_embedder\.text_embedder\.linear_1\.", "text_embedding.0."),
    (r"condition_embedder\.text_embedder\.linear_2\.", "text_embedding.2."),
    (r"condition_embedder\.time_embedder\.linear_1\.", "time_embedding.0."),
    (r"condition_embedder\.time_embedder\.linear_2\.", "time_embedding.2."),
    (r"condition_embedder\.time_proj\.", "time_projection.1."),
    (r"scale_shift_table$", "head.modulation"),
    (r"proj_out\.", "head.head."),
    (r"(blocks\.\d+\.)scale_shift_table$", r"\1modulation"),
    (r"(blocks\.\d+\.)attn1\.to_out\.0\.", r"\1self_attn.o."),
    (r"(blocks\.\d+\.)attn2\.to_out\.0\.", r"\1cross_attn.o."),
    (r"(blocks\.\d+\.)attn1\.(?:to_)?(q|k|v|norm_q|norm_k)\.", r"\1self_attn.\2."),
    (r"(blocks\.\d+\.)attn2\.(?:to_)?(q|k|v|norm_q|norm_k)\.", r"\1cross_attn.\2."),
    (r"(blocks\.\d+\.)norm2\.", r"\1norm3."),
    (r"(blocks\.\d+\.)ffn\.net\.0\.proj\.", r"\1ffn.0."),
    (r"(blocks\.\d+\.)ffn\.net\.2\.", r"\1ffn.2."),
)

DIFFUSERS_BLOCK: Rules = (
    (r"norm1\.gamma$", "residual.0.gamma"),
    (r"conv1\.", "residual.2."),
    (r"norm2\.gamma$", "residual.3.gamma"),
    (r"conv2\.", "residual.6."),
    (r"conv_shortcut\.", "shortcut."),
)

# original to ours

TRANSFORMER: Rules = (
    (r"patch_embedding\.", "patch_embedding."),
    (r"text_embedding\.0\.", "text_embedding.expand."),
    (r"text_embedding\.2\.", "text_embedding.contract."),
    (r"time_embedding\.0\.", "timestep_embedding.expand."),
    (r"time_embedding\.2\.", "timestep_embedding.contract."),
    (r"time_projection\.1\.", "timestep_embedding.project."),
    (r"(blocks\.\d+\.)modulation$", r"\1modulation"),
    (r"(blocks\.\d+\.)self_attn\.", r"\1attention."),
    (r"(blocks\.\d+\.)norm3\.", r"\1cross_attention.norm."),
    (r"(blocks\.\d+\.)cross_attn\.", r"\1cross_attention."),
    (r"(blocks\.\d+\.)ffn\.0\.", r"\1ffn.expand."),
    (r"(blocks\.\d+\.)ffn\.2\.", r"\1ffn.contract."),
    (r"head\.modulation$", "head_modulation"),
    (r"head\.head\.", "head."),
)
PROJECTIONS: dict[str, str] = {
    "q": "query",
    "k": "key",
    "v": "value",
    "o": "out",
    "norm_q": "norm_query",
    "norm_k": "norm_key",
}

RESIDUAL: Rules = (
    (r"residual\.0\.gamma$", "norm1.gamma"),
    (r"residual\.2\.", "conv1."),
    (r"residual\.3\.gamma$", "norm2.gamma"),
    (r"residual\.6\.", "conv2."),
    (r"shortcut\.", "shortcut."),
)


def _apply(rules: Rules, name: str) -> str | None:
    for pattern, replacement in rules:
        renamed, count = re.subn("^" + pattern, replacement, name)
        if count:
            return renamed
    return None


def without_prefix(names: Iterable[str]) -> dict[str, str]:
    """Each name with ComfyUI's prefix taken off where all names carry it."""
    names = list(names)
    has_prefix = bool(names) and all(name.startswith(PREFIX) for name in names)
    return {name: name.removeprefix(PREFIX) if has_prefix else name for name in names}


def original_transformer_name(name: str) -> str:
    """The original name of a transformer tensor, whichever of the two layouts it has."""
    return _apply(DIFFUSERS_TRANSFORMER, name) or name


def own_transformer_name(name: str) -> str | None:
    """This project's name of a transformer tensor in the original layout; None if it has none."""
    renamed = _apply(TRANSFORMER, name)
    if renamed is None:
        return None
    return re.sub(
        r"(attention\.)(norm_q|norm_k|q|k|v|o)\.",
        lambda match: f"{match[1]}{PROJECTIONS[match[2]]}.",
        renamed,
    )


def original_vae_name(name: str) -> str:
    """The original name of a Wan2.1 VAE tensor, whichever of the two layouts it has."""
    for theirs, original in (("quant_conv.", "conv1."), ("post_quant_conv.", "conv2.")):
        if name.startswith(theirs):
            return original + name.removeprefix(theirs)
    match = re.match(r"(encoder|decoder)\.(.*)", name)
    if match is None:
        return name
    part, rest = match.groups()
    rest = rest.replace("conv_in.", "conv1.", 1) if rest.startswith("conv_in.") else rest
    rest = re.sub(r"^norm_out\.", "head.0.", rest)
    rest = re.sub(r"^conv_out\.", "head.2.", rest)
    middle = re.match(r"mid_block\.(resnets|attentions)\.(\d)\.(.*)", rest)
    if middle:
        index = 1 if middle[1] == "attentions" else 2 * int(middle[2])
        return f"{part}.middle.{index}.{_apply(DIFFUSERS_BLOCK, middle[3]) or middle[3]}"
    down = re.match(r"down_blocks\.(\d+)\.(.*)", rest)
    if down:
        inner = down[2]
        inner = inner if inner.startswith(("resample", "time_conv")) else None
        return (
            f"{part}.downsamples.{down[1]}.{inner or _apply(DIFFUSERS_BLOCK, down[2]) or down[2]}"
        )
    up = re.match(r"up_blocks\.(\d+)\.(resnets\.(\d)|upsamplers\.0)\.(.*)", rest)
    if up:
        index = 4 * int(up[1]) + (3 if up[3] is None else int(up[3]))
        return f"{part}.upsamples.{index}.{_apply(DIFFUSERS_BLOCK, up[4]) or up[4]}"
    return f"{part}.{rest}"


def own_vae_name(name: str) -> str | None:
    """This project's name of a VAE tensor in the original layout; None if it has none.

    Begins with `encoder.` or `decoder.`; the encoder has three flat indices per level (two residual
    blocks and the way down), the decoder four (three and the way up).
    """
    fixed = {
        "conv1": "encoder.quant",
        "conv2": "decoder.post_quant",
    }
    for theirs, ours in fixed.items():
        if name.startswith(theirs + "."):
            return ours + name.removeprefix(theirs)
    match = re.match(r"(encoder|decoder)\.(conv1|middle|head|downsamples|upsamples)\.(.*)", name)
    if match is None:
        return None
    part, kind, rest = match.groups()
    if kind == "conv1":
        return f"{part}.conv_in.{rest}"
    if kind == "head":
        heads = {
            "0.gamma": "norm_out.gamma",
            "2.weight": "conv_out.weight",
            "2.bias": "conv_out.bias",
        }
        return f"{part}.{heads[rest]}" if rest in heads else None
    index, _, inner = rest.partition(".")
    if not index.isdigit():
        return None
    if kind == "middle":
        return f"{part}.middle.{index}.{_apply(RESIDUAL, inner) or inner}"
    level, position = divmod(int(index), 3 if kind == "downsamples" else 4)
    last = 2 if kind == "downsamples" else 3
    if position == last and kind == "downsamples" and _apply(RESIDUAL, inner):
        return None
    if position < last:
        return f"{part}.levels.{level}.blocks.{position}.{_apply(RESIDUAL, inner) or inner}"
    return f"{part}.levels.{level}.resample.{inner.replace('resample.1.', 'conv.')}"


def own_tiny_name(name: str) -> str | None:
    """This project's name of a TAEHV decoder tensor (the flat list of `taehv.py`)."""
    return _decoder_name(name, {1: "conv_in", 22: "conv_out"}, first=3)


def own_guided_name(name: str) -> str | None:
    """The same for the decoder of FlashVSR, which has a convolution more at either end."""
    ends = {1: "conv_in", 3: "more_in", 24: "more_out", 26: "conv_out"}
    return _decoder_name(name, ends, first=5)


def _decoder_name(name: str, ends: dict[int, str], first: int) -> str | None:
    """Three memory blocks, an enlargement, the growth in time and a convolution make a stage."""
    match = re.match(r"decoder\.(\d+)\.(.*)", name)
    if match is None:
        return None
    index, rest = int(match[1]), match[2]
    if index in ends:
        return f"{ends[index]}.{rest}"
    stage, position = divmod(index - first, 6)
    if not 0 <= stage < 3:
        return None
    if position < 3:
        convs = {"conv.0": "convs.0", "conv.2": "convs.1", "conv.4": "convs.2"}
        for theirs, ours in convs.items():
            if rest.startswith(theirs + "."):
                return f"stages.{stage}.blocks.{position}.{ours}{rest.removeprefix(theirs)}"
    if position == 4 and rest == "conv.weight":
        return f"stages.{stage}.grow.weight"
    return f"stages.{stage}.conv.{rest}" if position == 5 else None


def own_tiny_encoder_name(name: str) -> str | None:
    """This project's name of a TAEHV encoder tensor (the flat list of `taehv.py`).

    Pooling in time, a convolution and three memory blocks make a stage of five.
    """
    match = re.match(r"encoder\.(\d+)\.(.*)", name)
    if match is None:
        return None
    index, rest = int(match[1]), match[2]
    if index in (0, 17):
        return f"{'conv_in' if index == 0 else 'conv_out'}.{rest}"
    stage, position = divmod(index - 2, 5)
    if not 0 <= stage < 3:
        return None
    if position == 0:
        return f"stages.{stage}.pool.weight" if rest == "conv.weight" else None
    if position == 1:
        return f"stages.{stage}.conv.{rest}"
    conv = re.fullmatch(r"conv\.([024])\.(weight|bias)", rest)
    if conv is None:
        return None
    return f"stages.{stage}.blocks.{position - 2}.convs.{int(conv[1]) // 2}.{conv[2]}"
