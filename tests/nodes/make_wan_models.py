"""Run inside ComfyUI's interpreter: write models of the kinds of Wan 2.1 with random weights.

python make_wan_models.py COMFYUI VAE.safetensors TRANSFORMER.safetensors

The VAE has the real shape, the transformer one narrow layer of the real kind.
"""

import sys

import torch
from safetensors.torch import save_file

VAE = {"dim": 96, "z_dim": 16, "dim_mult": [1, 2, 4, 4], "num_res_blocks": 2}
STAGES = {"attn_scales": [], "temperal_downsample": [False, True, True], "dropout": 0.0}
TRANSFORMER = {"dim": 128, "ffn_dim": 128, "num_heads": 1, "num_layers": 1}


def main(comfyui: str, vae: str, transformer: str) -> None:
    sys.path.insert(0, comfyui)
    sys.argv = sys.argv[:1]
    import comfy.options

    comfy.options.enable_args_parsing(False)
    import comfy.cli_args

    # Before anything else of comfy, which would look for CUDA.
    comfy.cli_args.args.cpu = True
    import comfy.ops
    from comfy.ldm.wan.model import WanModel
    from comfy.ldm.wan.vae import WanVAE

    torch.manual_seed(0)
    save(WanVAE(**VAE, **STAGES), vae)
    save(WanModel(**TRANSFORMER, operations=comfy.ops.disable_weight_init), transformer)


def save(model: torch.nn.Module, file: str) -> None:
    weights = {name: 0.02 * torch.randn_like(w).half() for name, w in model.state_dict().items()}
    save_file(weights, file)


if __name__ == "__main__":
    main(*sys.argv[1:])
