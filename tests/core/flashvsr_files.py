"""FlashVSR v1.1's public files at a small width: names, shapes and layouts as published."""

import dataclasses

import torch
from infvsr_files import random_tensors, transformer_shapes, vae_shapes

from oasis_core.config import FLASHVSR

WIDTH, LAYERS, FFN, CONTEXT, FREQ, PROJECTOR, TINY = 256, 2, 40, 12, 16, 4, 4
REFERENCE = dataclasses.replace(
    FLASHVSR,
    width=WIDTH,
    num_layers=LAYERS,
    num_heads=2,
    ffn_width=FFN,
    projector_width=PROJECTOR,
    vae_width=4,
    tiny_width=TINY,
)
NUM_ROWS, NUM_WORDS = 512, 5
NAMES = {
    "transformer": "diffusion_pytorch_model_streaming_dmd.safetensors",
    "projector": "LQ_proj_in.ckpt",
    "prompt": "posi_prompt.pth",
    "tiny": "TCDecoder.ckpt",
    "vae": "Wan2.1_VAE.pth",
}


def projector_shapes(width=PROJECTOR, out=WIDTH):
    """LQ_proj_in.ckpt; of full width 8 tensors and 287,845,888 values."""
    first, second = 2 * width, 3 * width
    return {
        "conv1.weight": (first, 768, 4, 3, 3),
        "conv1.bias": (first,),
        "norm1.gamma": (first, 1, 1, 1),
        "conv2.weight": (second, first, 4, 3, 3),
        "conv2.bias": (second,),
        "norm2.gamma": (second, 1, 1, 1),
        "linear_layers.0.weight": (out, second),
        "linear_layers.0.bias": (out,),
    }


def decoder_shapes(width=TINY):
    """TCDecoder.ckpt; of full width (128) 66 tensors and 45,338,371 values."""
    sizes = (4 * width, 2 * width, width, width)
    shapes = {"decoder.1.weight": (sizes[0], 784, 3, 3), "decoder.1.bias": (sizes[0],)}
    shapes |= {"decoder.3.weight": (sizes[0], sizes[0], 3, 3)}
    shapes |= {"decoder.24.weight": (width, width, 3, 3)}
    shapes |= {"decoder.26.weight": (3, width, 3, 3), "decoder.26.bias": (3,)}
    for stage, growth in enumerate((1, 2, 2)):
        first, n = 5 + 6 * stage, sizes[stage]
        for block in range(first, first + 3):
            for conv, inputs in ((0, 2 * n), (2, n), (4, n)):
                shapes[f"decoder.{block}.conv.{conv}.weight"] = (n, inputs, 3, 3)
                shapes[f"decoder.{block}.conv.{conv}.bias"] = (n,)
        shapes[f"decoder.{first + 4}.conv.weight"] = (growth * n, n, 1, 1)
        shapes[f"decoder.{first + 5}.weight"] = (sizes[stage + 1], n, 3, 3)
    return shapes


def flashvsr_tensors():
    """All of the files' tensors by file; the prompt is one tensor, zeros after its words."""
    shapes = transformer_shapes(WIDTH, LAYERS, FFN, CONTEXT, FREQ)
    prompt = torch.zeros(1, NUM_ROWS, CONTEXT)
    generator = torch.Generator().manual_seed(8)
    prompt[:, :NUM_WORDS] = torch.randn(1, NUM_WORDS, CONTEXT, generator=generator)
    decoder = random_tensors(decoder_shapes(), seed=7)
    # Between black and white, as a trained one is.
    decoder["decoder.26.weight"] *= 0.3
    decoder["decoder.26.bias"] = torch.tensor([0.65, 0.3, 0.45])
    return {
        NAMES["transformer"]: random_tensors(shapes, seed=5),
        NAMES["projector"]: random_tensors(projector_shapes(), seed=6),
        NAMES["prompt"]: prompt,
        NAMES["tiny"]: decoder,
        NAMES["vae"]: random_tensors(vae_shapes(), seed=3),
    }


def write_flashvsr_files(folder, tensors):
    """Write the files as they are published: one safetensors file, and pickles."""
    from safetensors.torch import save_file

    for name, content in tensors.items():
        if name.endswith(".safetensors"):
            save_file(content, folder / name)
        else:
            torch.save(content, folder / name)
