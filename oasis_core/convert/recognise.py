"""Telling Wan2.1-T2V-1.3B from its relatives, so that a wrong file is refused by its name."""

from __future__ import annotations

from ..checkpoint import CheckpointError
from .keys import original_transformer_name, original_vae_name
from .weight_files import TensorSource

WANTED = "the transformer of Wan2.1-T2V-1.3B"
T2V_CHANNELS = 16
WIDTHS = {5120: "14B", 3072: "5B (Wan2.2-TI2V)"}
CHANNELS = {36: "I2V (image to video)", 32: "camera control", 48: "Fun Control, or Wan2.2's 5B"}


def refuse_other_models(source: TensorSource, wanted: str = WANTED) -> None:
    """Refuse what is recognised as another model.

    Args:
        source: The file.
        wanted: What is asked for instead.

    Raises:
        CheckpointError: Names what the file is and what is wanted.
    """
    kind = _recognise(source)
    if kind is not None:
        raise CheckpointError(f"{source.path} is {kind}; give {wanted}")


def _recognise(source: TensorSource) -> str | None:
    names = {original_transformer_name(name): name for name in source.shapes}
    if any(name.startswith(("tiny_decoder.", "transformer.blocks.")) for name in names):
        return "an oasis checkpoint already"
    if any("lora" in name.lower() for name in names):
        return "a LoRA, not a model"
    if any(original_vae_name(name).startswith("decoder.middle.") for name in names):
        return "a Wan VAE (its option is --vae)"
    if "decoder.22.weight" in names:
        return "a TAEHV (its option is --tiny)"
    if any(name.startswith("token_embedding") or "SelfAttention" in name for name in names):
        return "the text encoder"
    if any(name.startswith("vace_") for name in names):
        return "Wan2.1 VACE"
    is_image = ("img_emb.", "condition_embedder.image_embedder.", ".k_img", ".add_k_proj")
    if any(part in name for name in names for part in is_image):
        return "Wan2.1 I2V (image to video)"
    patch = source.shapes.get(names.get("patch_embedding.weight", ""), ())
    if len(patch) == 5 and patch[1] != T2V_CHANNELS:
        kind = CHANNELS.get(patch[1], f"a variant with {patch[1]} input channels")
        return f"Wan {kind}"
    if len(patch) == 5 and patch[0] in WIDTHS:
        return f"a Wan of {WIDTHS[patch[0]]}"
    return None
