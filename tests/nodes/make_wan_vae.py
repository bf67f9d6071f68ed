"""Run inside ComfyUI's interpreter: write a Wan 2.1 VAE of the real shape with random weights.

python make_wan_vae.py COMFYUI OUT.safetensors
"""

import sys

import torch
from safetensors.torch import save_file

WIDTHS = {"dim": 96, "z_dim": 16, "dim_mult": [1, 2, 4, 4], "num_res_blocks": 2}


def main(comfyui: str, out: str) -> None:
    sys.path.insert(0, comfyui)
    sys.argv = sys.argv[:1]
    import comfy.options

    comfy.options.enable_args_parsing(False)
    import comfy.cli_args

    # Before anything else of comfy, which would look for CUDA.
    comfy.cli_args.args.cpu = True
    from comfy.ldm.wan.vae import WanVAE

    stages = {"attn_scales": [], "temperal_downsample": [False, True, True], "dropout": 0.0}
    torch.manual_seed(0)
    weights = WanVAE(**WIDTHS, **stages).state_dict()
    save_file({name: 0.02 * torch.randn_like(w).half() for name, w in weights.items()}, out)


if __name__ == "__main__":
    main(*sys.argv[1:])
