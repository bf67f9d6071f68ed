"""InfVSR's public files at a small width: names, shapes and layouts as published."""

import dataclasses

import torch

from oasis_core.config import INFVSR

WIDTH, LAYERS, FFN, CONTEXT, FREQ, VISUAL = 128, 2, 40, 12, 16, 32
REFERENCE = dataclasses.replace(
    INFVSR,
    width=WIDTH,
    num_layers=LAYERS,
    num_heads=1,
    ffn_width=FFN,
    text_channels=CONTEXT,
    visual_width=VISUAL,
)
DEPTHS = (2, 2, 18, 2)


def transformer_shapes(width=WIDTH, layers=LAYERS, ffn=FFN, context=CONTEXT, freq=FREQ):
    """Wan's original names; of full size 825 tensors."""
    linear = {
        "text_embedding.0": (width, context),
        "text_embedding.2": (width, width),
        "time_embedding.0": (width, freq),
        "time_embedding.2": (width, width),
        "time_projection.1": (6 * width, width),
        "head.head": (64, width),
    }
    shapes = {"patch_embedding.weight": (width, 16, 1, 2, 2), "patch_embedding.bias": (width,)}
    shapes["head.modulation"] = (1, 2, width)
    for i in range(layers):
        shapes[f"blocks.{i}.modulation"] = (1, 6, width)
        shapes[f"blocks.{i}.norm3.weight"] = shapes[f"blocks.{i}.norm3.bias"] = (width,)
        linear |= {f"blocks.{i}.ffn.0": (ffn, width), f"blocks.{i}.ffn.2": (width, ffn)}
        for kind in ("self_attn", "cross_attn"):
            linear |= {f"blocks.{i}.{kind}.{x}": (width, width) for x in "qkvo"}
            shapes |= {f"blocks.{i}.{kind}.norm_{x}.weight": (width,) for x in "qk"}
    for name, shape in linear.items():
        shapes |= {f"{name}.weight": shape, f"{name}.bias": shape[:1]}
    return shapes


def visual_shapes(width=VISUAL, context=CONTEXT):
    """RAM's visual encoder, with the tables that its file stores besides."""
    shapes = {
        "visual_encoder.patch_embed.proj.weight": (width, 3, 4, 4),
        "visual_encoder.patch_embed.proj.bias": (width,),
        "image_proj.weight": (context, 8 * width),
        "image_proj.bias": (context,),
    }
    norms = {"patch_embed.norm": width, "norm": 8 * width}
    for stage, depth in enumerate(DEPTHS):
        n = width * 2**stage
        for block in range(depth):
            prefix = f"layers.{stage}.blocks.{block}"
            norms |= {f"{prefix}.norm1": n, f"{prefix}.norm2": n}
            sizes = {"attn.qkv": (3 * n, n), "attn.proj": (n, n)}
            sizes |= {"mlp.fc1": (4 * n, n), "mlp.fc2": (n, 4 * n)}
            for name, shape in sizes.items():
                shapes[f"visual_encoder.{prefix}.{name}.weight"] = shape
                shapes[f"visual_encoder.{prefix}.{name}.bias"] = shape[:1]
            table = f"visual_encoder.{prefix}.attn.relative_position_bias_table"
            shapes[table] = (529, n // 32)
        if stage < 3:
            norms[f"layers.{stage}.downsample.norm"] = 4 * n
            name = f"visual_encoder.layers.{stage}.downsample.reduction.weight"
            shapes[name] = (2 * n, 4 * n)
    for name, n in norms.items():
        shapes |= {f"visual_encoder.{name}.{part}": (n,) for part in ("weight", "bias")}
    return shapes


def low_rank_shapes(width=VISUAL, rank=8):
    """SeeSR's additions: two of them, for queries and values, one above the other."""
    shapes = {}
    for stage, depth in enumerate(DEPTHS):
        n = width * 2**stage
        for block in range(depth):
            prefix = f"visual_encoder.layers.{stage}.blocks.{block}.attn.qkv"
            shapes[f"{prefix}.lora_A"] = (2 * rank, n)
            shapes[f"{prefix}.lora_B"] = (2 * n, rank)
    return shapes


def vae_shapes(width=4):
    """Wan2.1's VAE in the original layout."""
    shapes = {}

    def conv(name, outputs, inputs, *kernel):
        shapes[f"{name}.weight"], shapes[f"{name}.bias"] = (outputs, inputs, *kernel), (outputs,)

    def block(name, inputs, outputs):
        shapes[f"{name}.residual.0.gamma"] = (inputs, 1, 1, 1)
        shapes[f"{name}.residual.3.gamma"] = (outputs, 1, 1, 1)
        conv(f"{name}.residual.2", outputs, inputs, 3, 3, 3)
        conv(f"{name}.residual.6", outputs, outputs, 3, 3, 3)
        if inputs != outputs:
            conv(f"{name}.shortcut", outputs, inputs, 1, 1, 1)

    top = 4 * width
    for part, outputs in (("encoder", 32), ("decoder", 3)):
        block(f"{part}.middle.0", top, top)
        block(f"{part}.middle.2", top, top)
        shapes[f"{part}.middle.1.norm.gamma"] = (top, 1, 1)
        conv(f"{part}.middle.1.to_qkv", 3 * top, top, 1, 1)
        conv(f"{part}.middle.1.proj", top, top, 1, 1)
        last = top if part == "encoder" else width
        shapes[f"{part}.head.0.gamma"] = (last, 1, 1, 1)
        conv(f"{part}.head.2", outputs, last, 3, 3, 3)
    conv("conv1", 32, 32, 1, 1, 1)
    conv("conv2", 16, 16, 1, 1, 1)
    conv("encoder.conv1", width, 3, 3, 3, 3)
    conv("decoder.conv1", top, 16, 3, 3, 3)
    sizes = [width * n for n in (1, 1, 2, 4, 4)]
    for level in range(4):
        first = f"encoder.downsamples.{3 * level}"
        block(first, sizes[level], sizes[level + 1])
        block(f"encoder.downsamples.{3 * level + 1}", sizes[level + 1], sizes[level + 1])
        if level < 3:
            name, n = f"encoder.downsamples.{3 * level + 2}", sizes[level + 1]
            conv(f"{name}.resample.1", n, n, 3, 3)
            if level:
                conv(f"{name}.time_conv", n, n, 3, 1, 1)
    sizes = [width * n for n in (4, 4, 4, 2, 1)]
    for level in range(4):
        inputs = sizes[level] if level == 0 else sizes[level] // 2
        for index in range(3):
            name = f"decoder.upsamples.{4 * level + index}"
            block(name, sizes[level + 1] if index else inputs, sizes[level + 1])
        if level < 3:
            name, n = f"decoder.upsamples.{4 * level + 3}", sizes[level + 1]
            conv(f"{name}.resample.1", n // 2, n, 3, 3)
            if level < 2:
                conv(f"{name}.time_conv", 2 * n, n, 3, 1, 1)
    return shapes


def tiny_shapes(width=4):
    """taew2_1.pth, encoder and decoder; its first growth layer makes two frames, as published."""
    shapes = {"encoder.0.weight": (width, 3, 3, 3), "encoder.0.bias": (width,)}
    shapes |= {"encoder.17.weight": (16, width, 3, 3), "encoder.17.bias": (16,)}
    sizes = (4 * width, 2 * width, width, width)
    shapes |= {"decoder.1.weight": (sizes[0], 16, 3, 3), "decoder.1.bias": (sizes[0],)}
    shapes |= {"decoder.22.weight": (3, width, 3, 3), "decoder.22.bias": (3,)}
    memory = []
    for first, pooled in ((2, 2), (7, 2), (12, 1)):
        shapes[f"encoder.{first}.conv.weight"] = (width, pooled * width, 1, 1)
        shapes[f"encoder.{first + 1}.weight"] = (width, width, 3, 3)
        memory += [(f"encoder.{i}", width) for i in range(first + 2, first + 5)]
    for stage in range(3):
        first, n = 3 + 6 * stage, sizes[stage]
        memory += [(f"decoder.{i}", n) for i in range(first, first + 3)]
        shapes[f"decoder.{first + 4}.conv.weight"] = (2 * n, n, 1, 1)
        shapes[f"decoder.{first + 5}.weight"] = (sizes[stage + 1], n, 3, 3)
    for name, n in memory:
        for conv, inputs in ((0, 2 * n), (2, n), (4, n)):
            shapes[f"{name}.conv.{conv}.weight"] = (n, inputs, 3, 3)
            shapes[f"{name}.conv.{conv}.bias"] = (n,)
    return shapes


def random_tensors(shapes, seed=0, gain=1.0):
    """Tensors at a size that neither fades away nor explodes."""
    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for name, shape in sorted(shapes.items()):
        noise = torch.randn(shape, generator=generator)
        is_norm = "norm" in name or "gamma" in name
        if is_norm and not name.endswith("bias") and torch.Size(shape).numel() == shape[0]:
            tensors[name] = 1 + 0.1 * noise
        elif "bias_table" in name:
            tensors[name] = noise
        elif len(shape) > 1:
            tensors[name] = gain * noise * torch.Size(shape[1:]).numel() ** -0.5
        else:
            tensors[name] = 0.1 * noise
    return tensors


def public_tensors():
    """All of the files' tensors by file."""
    visual = random_tensors(visual_shapes(), seed=1)
    # What RAM's file holds besides.
    visual["visual_encoder.layers.0.blocks.1.attn_mask"] = torch.zeros(64, 4, 4)
    visual["visual_encoder.layers.0.blocks.0.attn.relative_position_index"] = torch.zeros(
        4, 4, dtype=torch.int64
    )
    visual["label_embed"] = torch.zeros(3, 5)
    tiny = random_tensors(tiny_shapes(), seed=4)
    for name in tiny:
        tiny[name] *= 1.4 if name.startswith("decoder") else 1.0
    # Grey, not black: a last layer without it would make one colour of everything.
    tiny["decoder.22.bias"] = torch.full((3,), 0.5)
    return {
        "InfVSR.ckpt": random_tensors(transformer_shapes(), seed=0),
        "ram_swin_large_14m.pth": visual,
        "DAPE.pth": random_tensors(low_rank_shapes(), seed=2),
        "Wan2.1_VAE.pth": random_tensors(vae_shapes(), seed=3),
        "taew2_1.pth": tiny,
    }


def write_files(folder, tensors):
    """Write the files as they are published: pickles; RAM's inside a dictionary."""
    for name, content in tensors.items():
        wrapped = {"model": content} if name.startswith("ram") else content
        torch.save(wrapped, folder / name)
