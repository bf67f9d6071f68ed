"""Models that are known here, and the public files they are made of: facts, no downloads."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from .public_files import FLASHVSR_1_1

WAN_VAE_SHA256 = "38071ab59bd94681c686fa51d75a1968f64e470262043be31f7a094e442fd981"
WAN_VAE_COPY_SHA256 = "2fc39d31359a4b0a64f55876d8ff7fa8d780956ae2cb13463b0223e15148976b"
FLASHVSR = "HF JunhaoZhuang/FlashVSR-v1.1"
WAN_FP16_SHA256 = "be531024cd9018cb5b48c40cfbb6a6191645b1c792eb8bf4f8c1c6e10f924dc5"


@dataclass(frozen=True, slots=True, kw_only=True)
class PublicFile:
    """A file that somebody published."""

    name: str
    """The file's name."""
    published: str
    """Where: a repository or space of Hugging Face (HF), or of GitHub."""
    licence: str
    """Its licence, as stated there."""
    use: str
    """What it is for."""
    num_bytes: int | None = None
    """Its size, where that is known exactly."""
    sha256: str | None = None
    """Its hash, where that is known."""
    is_optional: bool = False
    """Whether the model works without it."""
    part: str = ""
    """What it is of the model, by the converter's word."""
    copies: tuple[str, ...] = ()
    """Names under which others have published it again."""

    @property
    def names(self) -> set[str]:
        """All its names, in small letters."""
        return {name.lower() for name in (self.name, *self.copies)}

    def find(self, folders: list[Path]) -> Path | None:
        """The first file of these names, whatever their case, in some folders."""
        for folder in folders:
            for path in sorted(folder.iterdir()):
                if path.name.lower() in self.names and path.is_file():
                    return path
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedModel:
    """A model that files make."""

    name: str
    """Its name here."""
    does: str
    """What it is and whom it serves, in a sentence."""
    files: tuple[PublicFile, ...] = ()
    """Empty for a bundled model."""
    convert: str = ""
    """The command that makes a checkpoint of them."""


WAN_VAE = PublicFile(
    name="Wan2.1_VAE.pth",
    part="vae",
    copies=("Wan2.1_VAE.safetensors",),
    published="HF Wan-AI/Wan2.1-T2V-1.3B",
    licence="Apache-2.0",
    use="pixels to latents and back",
    num_bytes=507_609_880,
    sha256=WAN_VAE_SHA256,
)
WAN_VAE_COPY = PublicFile(
    name="wan_2.1_vae.safetensors",
    part="vae",
    published="HF Comfy-Org/Wan_2.1_ComfyUI_repackaged, split_files/vae",
    licence="Apache-2.0",
    use="the same in half precision, instead",
    num_bytes=253_815_318,
    sha256=WAN_VAE_COPY_SHA256,
    is_optional=True,
)
TAEHV = PublicFile(
    name="taew2_1.pth",
    part="tiny",
    published="GitHub madebyollin/taehv",
    licence="MIT",
    use="the same, fast: --decoder tiny, tiny-both",
    is_optional=True,
)

MODELS = (
    PublishedModel(name="oasis-tiny", does="small, bundled, for any machine"),
    PublishedModel(
        name="infvsr",
        does="restores in one step on Wan2.1-1.3B; for a GPU of 8 GiB and more",
        files=(
            PublicFile(
                name="InfVSR.ckpt",
                part="transformer",
                published="HF zzqingz/InfVSR",
                licence="MIT",
                use="the transformer, about 2.8 GB",
            ),
            PublicFile(
                name="ram_swin_large_14m.pth",
                part="visual",
                published="HF space xinyu1205/recognize-anything",
                licence="Apache-2.0",
                use="features of the first frame",
            ),
            PublicFile(
                name="DAPE.pth",
                part="visual_lora",
                published="HF alexnasa/SEESR",
                licence="Apache-2.0",
                use="low-rank additions to those",
            ),
            WAN_VAE,
            WAN_VAE_COPY,
            TAEHV,
        ),
        convert="oasis convert --source infvsr InfVSR.ckpt infvsr.safetensors --visual "
        "ram_swin_large_14m.pth --visual-lora DAPE.pth --vae Wan2.1_VAE.pth --tiny taew2_1.pth",
    ),
    PublishedModel(
        name="flashvsr-1.1",
        does="restores live action in one step on Wan2.1-1.3B; for a GPU of 12 GiB and more",
        files=(
            PublicFile(
                name="diffusion_pytorch_model_streaming_dmd.safetensors",
                part="transformer",
                copies=("FlashVSR1_1.safetensors",),
                published=FLASHVSR,
                licence="Apache-2.0",
                use="the transformer",
                num_bytes=5_676_070_392,
                sha256=FLASHVSR_1_1["transformer"],
            ),
            PublicFile(
                name="LQ_proj_in.ckpt",
                part="projector",
                copies=("LQ_proj_in.safetensors",),
                published=FLASHVSR,
                licence="Apache-2.0",
                use="the source to tokens",
                num_bytes=575_694_948,
                sha256=FLASHVSR_1_1["projector"],
            ),
            PublicFile(
                name="posi_prompt.pth",
                part="prompt",
                copies=("Prompt.safetensors",),
                published="GitHub OpenImagingLab/FlashVSR, examples/WanVSR/prompt_tensor",
                licence="Apache-2.0",
                use="the prompt that it was trained with",
                sha256=FLASHVSR_1_1["prompt"],
            ),
            PublicFile(
                name="TCDecoder.ckpt",
                part="tiny",
                copies=("TCDecoder.safetensors",),
                published=FLASHVSR,
                licence="Apache-2.0",
                use="its own decoder, fast",
                num_bytes=189_018_333,
                sha256=FLASHVSR_1_1["tiny"],
            ),
            replace(WAN_VAE, use="another decoder, slower: --decoder wan", is_optional=True),
            WAN_VAE_COPY,
        ),
        convert="oasis convert --source flashvsr-1.1 "
        "diffusion_pytorch_model_streaming_dmd.safetensors flashvsr.safetensors --projector "
        "LQ_proj_in.ckpt --prompt posi_prompt.pth --tiny TCDecoder.ckpt",
    ),
    PublishedModel(
        name="oasis-1.3b",
        does="the paper's size on Wan2.1-1.3B, to be trained; nobody has published weights",
        files=(
            PublicFile(
                name="wan2.1_t2v_1.3B_fp16.safetensors",
                published="HF Comfy-Org/Wan_2.1_ComfyUI_repackaged, split_files/diffusion_models",
                licence="Apache-2.0",
                use="the transformer that training starts from",
                num_bytes=2_838_303_560,
                sha256=WAN_FP16_SHA256,
            ),
            WAN_VAE,
            WAN_VAE_COPY,
            TAEHV,
        ),
        convert="oasis convert --source wan2.1 wan2.1_t2v_1.3B_fp16.safetensors "
        "oasis-1.3b.safetensors --vae Wan2.1_VAE.pth --tiny taew2_1.pth",
    ),
)
