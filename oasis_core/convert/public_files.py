"""Hashes of the public files, so that a checkpoint can say what it was made from."""

from __future__ import annotations

PUBLIC = {
    "96b6b242ca1c2f24e9d02cd6596066fab6d310e2d7538f33ae267cb18d957e8f": (
        "Wan-AI/Wan2.1-T2V-1.3B diffusion_pytorch_model.safetensors"
    ),
    "be531024cd9018cb5b48c40cfbb6a6191645b1c792eb8bf4f8c1c6e10f924dc5": (
        "Comfy-Org/Wan_2.1_ComfyUI_repackaged wan2.1_t2v_1.3B_fp16.safetensors"
    ),
    "6f999b0d6cb9a72b3d98ac386ed96f57f8cecae13994a69232514ea4974ad5fd": (
        "Comfy-Org/Wan_2.1_ComfyUI_repackaged wan2.1_t2v_1.3B_bf16.safetensors"
    ),
    "38071ab59bd94681c686fa51d75a1968f64e470262043be31f7a094e442fd981": (
        "Wan-AI/Wan2.1-T2V-1.3B Wan2.1_VAE.pth"
    ),
    "2fc39d31359a4b0a64f55876d8ff7fa8d780956ae2cb13463b0223e15148976b": (
        "Comfy-Org/Wan_2.1_ComfyUI_repackaged wan_2.1_vae.safetensors"
    ),
}
FLASHVSR_1_1 = {
    "transformer": "bd28180edcf3446c028e32fc6b731a80bf7e4da2ab4caac3186b9499964d37be",
    "projector": "d6d011cdaaba6a52645086caa08fa04124e746f6ca568140a24007591142bfd2",
    "tiny": "e224bdcf2f52745cbf4d393ff5374c2ba09e90285d5d19062d2bf63b915b6161",
    "prompt": "4601107a11e4e11a936a6b79df579e54dbc99872132bf542151f0ffd65b4b1ef",
}
"""Of the files of FlashVSR v1.1, by part."""
PUBLIC |= {
    FLASHVSR_1_1["transformer"]: (
        "JunhaoZhuang/FlashVSR-v1.1 diffusion_pytorch_model_streaming_dmd.safetensors"
    ),
    FLASHVSR_1_1["projector"]: "JunhaoZhuang/FlashVSR-v1.1 LQ_proj_in.ckpt",
    FLASHVSR_1_1["tiny"]: "JunhaoZhuang/FlashVSR-v1.1 TCDecoder.ckpt",
    FLASHVSR_1_1["prompt"]: "OpenImagingLab/FlashVSR posi_prompt.pth",
}


def describe_hashes(hashes: dict[str, str]) -> list[str]:
    """One line per file: its public name if the hash is known, else its own, and the hash."""
    return [
        f"{PUBLIC.get(sha256, f'{name} (not a file known here)')}, sha256 {sha256}"
        for name, sha256 in hashes.items()
    ]
