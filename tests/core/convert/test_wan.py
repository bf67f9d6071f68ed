"""Converting Wan2.1: tiny files in every public layout, and everything that must be refused."""

import dataclasses
import json

import pytest
import torch
from safetensors.torch import save_file

from oasis_core.checkpoint import CheckpointError, load_checkpoint, read_header
from oasis_core.cli import main
from oasis_core.config import OASIS_1_3B
from oasis_core.convert.keys import original_transformer_name, own_transformer_name
from oasis_core.convert.wan import WanOptions, convert_wan
from oasis_core.model.transformer import OasisTransformer

WIDTH, LAYERS, FFN, TEXT, FREQ = 128, 2, 40, 12, 16
VAE_WIDTH = TINY_WIDTH = 4
UNFOLDED = dataclasses.replace(
    OASIS_1_3B, stem="latent", width=WIDTH, num_layers=LAYERS, num_heads=1, ffn_width=FFN,
    num_context_keys=0, text_channels=TEXT, timestep_channels=FREQ,
)  # fmt: skip
FLOAT32 = WanOptions(stem="latent", dtype=torch.float32)


def transformer_shapes(width=WIDTH, in_channels=16):
    """The original names and shapes, from the published table."""
    linear = {
        "text_embedding.0": (width, TEXT),
        "text_embedding.2": (width, width),
        "time_embedding.0": (width, FREQ),
        "time_embedding.2": (width, width),
        "time_projection.1": (6 * width, width),
        "head.head": (64, width),
    }
    shapes = {
        "patch_embedding.weight": (width, in_channels, 1, 2, 2),
        "patch_embedding.bias": (width,),
    }
    shapes["head.modulation"] = (1, 2, width)
    for i in range(LAYERS):
        shapes[f"blocks.{i}.modulation"] = (1, 6, width)
        shapes[f"blocks.{i}.norm3.weight"] = shapes[f"blocks.{i}.norm3.bias"] = (width,)
        linear |= {f"blocks.{i}.ffn.0": (FFN, width), f"blocks.{i}.ffn.2": (width, FFN)}
        for kind in ("self_attn", "cross_attn"):
            linear |= {f"blocks.{i}.{kind}.{x}": (width, width) for x in "qkvo"}
            shapes |= {f"blocks.{i}.{kind}.norm_{x}.weight": (width,) for x in "qk"}
    for name, shape in linear.items():
        shapes |= {f"{name}.weight": shape, f"{name}.bias": shape[:1]}
    return shapes


def random_tensors(shapes, seed=0):
    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for name, shape in sorted(shapes.items()):
        scale = torch.Size(shape[1:]).numel() ** -0.5 if len(shape) > 1 else 0.3
        tensors[name] = scale * torch.randn(shape, generator=generator)
    return tensors


DIFFUSERS = [
    ("text_embedding.0.", "condition_embedder.text_embedder.linear_1."),
    ("text_embedding.2.", "condition_embedder.text_embedder.linear_2."),
    ("time_embedding.0.", "condition_embedder.time_embedder.linear_1."),
    ("time_embedding.2.", "condition_embedder.time_embedder.linear_2."),
    ("time_projection.1.", "condition_embedder.time_proj."),
    ("head.modulation", "scale_shift_table"),
    ("head.head.", "proj_out."),
    (".modulation", ".scale_shift_table"),
    (".norm3.", ".norm2."),
    (".ffn.0.", ".ffn.net.0.proj."),
    (".ffn.2.", ".ffn.net.2."),
    ("self_attn.o.", "attn1.to_out.0."),
    ("cross_attn.o.", "attn2.to_out.0."),
    ("self_attn.norm", "attn1.norm"),
    ("cross_attn.norm", "attn2.norm"),
    ("self_attn.", "attn1.to_"),
    ("cross_attn.", "attn2.to_"),
]


def to_diffusers(tensors):
    named = {}
    for name, tensor in tensors.items():
        for original, theirs in DIFFUSERS:
            name = name.replace(original, theirs)
        named[name] = tensor
    return named


def write_sharded(folder, tensors):
    folder.mkdir()
    names, weight_map = sorted(tensors), {}
    for i, part in enumerate((names[::2], names[1::2]), start=1):
        file = f"diffusion_pytorch_model-0000{i}-of-00002.safetensors"
        save_file({name: tensors[name] for name in part}, folder / file)
        weight_map |= dict.fromkeys(part, file)
    index = folder / "diffusion_pytorch_model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return index


LAYOUTS = ["original", "comfyui", "comfyui-prefix", "pickle", "wrapped", "diffusers", "folder"]


def write_layout(tmp_path, layout, tensors):
    path = tmp_path / "source.safetensors"
    if layout == "comfyui-prefix":
        tensors = {f"model.diffusion_model.{name}": x for name, x in tensors.items()}
    if layout == "comfyui":
        tensors = {name: x.half() for name, x in tensors.items()}
    if layout in ("pickle", "wrapped"):
        path = tmp_path / "source.pth"
        torch.save({"state_dict": tensors} if layout == "wrapped" else tensors, path)
        return path
    if layout in ("diffusers", "folder"):
        index = write_sharded(tmp_path / "shards", to_diffusers(tensors))
        return index if layout == "diffusers" else index.parent
    save_file(tensors, path)
    return path


@pytest.fixture(scope="module")
def tensors():
    return random_tensors(transformer_shapes())


@pytest.fixture(scope="module")
def vae_file(tmp_path_factory):
    """A VAE file in the original layout, made by inverting nothing: shapes from the definition."""
    from oasis_core.model.wan_vae import WanDecoder, WanEncoder

    shapes = {}
    for part, module in (("encoder", WanEncoder(VAE_WIDTH)), ("decoder", WanDecoder(VAE_WIDTH))):
        for name, x in module.state_dict().items():
            shapes[original_name_of_vae(part, name)] = tuple(x.shape)
    path = tmp_path_factory.mktemp("vae") / "vae.safetensors"
    save_file(random_tensors(shapes, seed=1), path)
    return path


def original_name_of_vae(part, name):
    """The published name of one of our VAE tensors."""
    if name.startswith(("quant.", "post_quant.")):
        return f"{'conv1' if part == 'encoder' else 'conv2'}.{name.split('.')[1]}"
    for ours, theirs in (
        ("conv_in", "conv1"), ("norm_out", "head.0"), ("conv_out", "head.2"),
        ("norm1.", "residual.0."), ("conv1.", "residual.2."),
        ("norm2.", "residual.3."), ("conv2.", "residual.6."),
    ):  # fmt: skip
        if name.startswith(("conv_in", "norm_out", "conv_out")):
            if name.startswith(ours):
                return f"{part}.{name.replace(ours, theirs)}"
        else:
            name = name.replace(f".{ours}", f".{theirs}")
    if name.startswith("levels."):
        _, level, kind, *rest = name.split(".")
        per_level, flat = (3, "downsamples") if part == "encoder" else (4, "upsamples")
        index = per_level * int(level)
        if kind == "blocks":
            index += int(rest.pop(0))
        else:
            index += per_level - 1
            rest = ["resample", "1", *rest[1:]] if rest[0] == "conv" else rest
        name = ".".join([flat, str(index), *rest])
    return f"{part}.{name}"


@pytest.fixture(scope="module")
def tiny_file(tmp_path_factory):
    from oasis_core.model.tiny_decoder import TinyDecoder

    tensors = {"encoder.0.weight": torch.zeros(1)}  # what the public file has besides
    for name, x in TinyDecoder(TINY_WIDTH).state_dict().items():
        part, *rest = name.split(".")
        if part != "stages":
            index = 1 if part == "conv_in" else 22
        else:
            stage, kind, *rest = rest
            index = 3 + 6 * int(stage) + {"blocks": 0, "grow": 4, "conv": 5}[kind]
            if kind == "blocks":
                index += int(rest[0])
                rest = ["conv", str(2 * int(rest[2])), rest[3]]
            rest = ["conv", *rest] if kind == "grow" else rest
        tensors[f"decoder.{index}.{'.'.join(rest)}"] = x
    # The public file's first growth layer makes two frames, of which the last counts.
    grow = tensors["decoder.7.conv.weight"]
    tensors["decoder.7.conv.weight"] = torch.cat([torch.full_like(grow, 9.0), grow])
    path = tmp_path_factory.mktemp("tiny") / "taew2_1.pth"
    torch.save(tensors, path)
    return path, tensors


def unfolded(tensors):
    with torch.device("meta"):
        model = OasisTransformer(UNFOLDED).eval()
    shapes = {name: x.shape for name, x in model.state_dict().items()}
    own = {own_transformer_name(original_transformer_name(n)): x for n, x in tensors.items()}
    model.load_state_dict({n: x.reshape(shapes[n]) for n, x in own.items()}, assign=True)
    return model


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_gives_the_function_of_the_source(tmp_path, tensors, vae_file, layout):
    """Folded text and timestep: the same prediction as with 512 rows of text and an embedding."""
    source, out = write_layout(tmp_path, layout, tensors), tmp_path / "out.safetensors"
    features = torch.randn(1, TEXT)
    save_file({"context": features}, tmp_path / "context.safetensors")
    options = dataclasses.replace(FLOAT32, timestep=700.0)
    convert_wan(
        source, out, vae=vae_file, context=tmp_path / "context.safetensors", options=options
    )
    checkpoint = load_checkpoint(out)
    assert checkpoint.model.config.num_context_keys == 2
    latent = torch.randn(1, 16, 2, 4, 6)
    context = torch.cat([features, torch.zeros(511, TEXT)])[None]
    with torch.inference_mode():
        _, got = checkpoint.model.transformer(latent)
        _, expected = unfolded(tensors)(latent, timestep=torch.tensor([700.0]), context=context)
    tolerance = 0.02 if layout == "comfyui" else 1e-5  # float16 rounds the weights
    assert expected.std() > 0.1
    assert (got - expected).abs().max() <= tolerance


def test_without_a_context_there_is_padding_alone(tmp_path, tensors, vae_file):
    source, out = write_layout(tmp_path, "original", tensors), tmp_path / "out.safetensors"
    info = convert_wan(source, out, vae=vae_file, options=FLOAT32)
    latent = torch.randn(1, 16, 1, 4, 4)
    with torch.inference_mode():
        _, got = load_checkpoint(out).model.transformer(latent)
        _, expected = unfolded(tensors)(latent, context=torch.zeros(1, 512, TEXT))
    assert (got - expected).abs().max() <= 1e-5
    assert info["context"] == "padding alone"


def test_timestep_can_be_kept_for_training(tmp_path, tensors, vae_file):
    source, out = write_layout(tmp_path, "original", tensors), tmp_path / "out.safetensors"
    options = dataclasses.replace(FLOAT32, folds_timestep=False, timestep=300.0)
    convert_wan(source, out, vae=vae_file, options=options)
    model = load_checkpoint(out).model
    latent, context = torch.randn(1, 16, 1, 4, 4), torch.zeros(1, 512, TEXT)
    with torch.inference_mode():
        for timestep in (300.0, 900.0):
            t = torch.tensor([timestep])
            _, got = model.transformer(latent, timestep=t)
            _, expected = unfolded(tensors)(latent, timestep=t, context=context)
            assert (got - expected).abs().max() <= 1e-5
        assert torch.equal(
            model.transformer(latent)[1],
            model.transformer(latent, timestep=torch.tensor([300.0]))[1],
        )


def test_whole_checkpoint_from_the_shell(tmp_path, tensors, vae_file, tiny_file, capsys):
    source, out = write_layout(tmp_path, "comfyui-prefix", tensors), tmp_path / "out.safetensors"
    command = ["convert", "--source", "wan2.1", str(source), str(out), "--vae", str(vae_file)]
    assert main([*command, "--tiny", str(tiny_file[0])]) == 0
    config, routing, info = read_header(out)
    assert (config.decoder, config.vae_width, config.tiny_width) == ("wan", VAE_WIDTH, TINY_WIDTH)
    assert (config.stem, config.prediction, config.num_context_keys) == ("unshuffle", "sample", 1)
    assert routing.counts(0) == (1, 0, 0)
    assert info["licence"] == "Apache-2.0 and MIT (tiny decoder)"
    assert "sha256" in info["files"]["transformer"][0]
    assert "transformer.patch_embedding is random" in capsys.readouterr().out
    checkpoint = load_checkpoint(out, decoder="tiny")
    grow = checkpoint.model.tiny_decoder.stages[0].grow.weight
    assert torch.equal(grow.float(), tiny_file[1]["decoder.7.conv.weight"][16:].bfloat16().float())
    with torch.inference_mode():
        residual = checkpoint.model(torch.rand(1, 3, 5, 32, 48))
    assert residual.shape == (1, 3, 5, 32, 48)
    assert torch.isfinite(residual).all()
    assert main(command) == 1  # exists
    assert "add --overwrite" in capsys.readouterr().err


def with_(tensors, **changes):
    return {**tensors, **{name.replace("__", "."): x for name, x in changes.items()}}


def without(tensors, name):
    return {key: x for key, x in tensors.items() if key != name}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: with_(t, img_emb__proj__0__weight=torch.zeros(2)), "Wan2.1 I2V"),
        (lambda t: with_(t, blocks__0__cross_attn__k_img__weight=torch.zeros(2)), "Wan2.1 I2V"),
        (lambda t: with_(t, patch_embedding__weight=torch.zeros(128, 36, 1, 2, 2)), "is Wan I2V"),
        (lambda t: with_(t, patch_embedding__weight=torch.zeros(5120, 16, 1, 2, 2)), "Wan of 14B"),
        (lambda t: with_(t, patch_embedding__weight=torch.zeros(8, 48, 1, 2, 2)), "Fun Control"),
        (lambda t: with_(t, vace_blocks__0__x=torch.zeros(2)), "VACE"),
        (lambda t: {"blocks.0.self_attn.q.lora_A.weight": torch.zeros(2)}, "a LoRA"),
        (lambda t: {"decoder.22.weight": torch.zeros(3, 4, 3, 3)}, "is a TAEHV .*--tiny"),
        (lambda t: {"decoder.middle.0.residual.0.gamma": torch.zeros(4)}, "a Wan VAE .*--vae"),
        (lambda t: with_(t, blocks__7__surprise=torch.zeros(2)), "does not have .*surprise"),
        (lambda t: without(t, "blocks.1.ffn.2.bias"), "lacks tensors .*ffn.contract.bias"),
        (lambda t: without(t, "patch_embedding.weight"), "lacks patch_embedding.weight"),
        (lambda t: with_(t, head__head__bias=torch.zeros(63)), "head.head.bias must have"),
        (lambda t: with_(t, head__head__bias=torch.zeros(64).char()), "not quantised"),
        (lambda t: with_(t, head__head__bias=torch.full((64,), torch.nan)), "NaN or infinity"),
        (lambda t: with_(t, blocks__2__modulation=torch.zeros(1, 6, 128)), "lacks tensors"),
    ],
)
def test_other_and_broken_files_are_refused_by_name(tmp_path, tensors, change, message):
    path, out = tmp_path / "source.safetensors", tmp_path / "out.safetensors"
    save_file({name: x.contiguous() for name, x in change(tensors).items()}, path)
    with pytest.raises(CheckpointError, match=message):
        convert_wan(path, out)
    assert not out.exists()


def test_a_missing_shard_is_named(tmp_path, tensors):
    index = write_sharded(tmp_path / "shards", tensors)
    (index.parent / "diffusion_pytorch_model-00002-of-00002.safetensors").unlink()
    out = tmp_path / "out.safetensors"
    with pytest.raises(CheckpointError, match="not there: diffusion_pytorch_model-00002"):
        convert_wan(index, out)
    with pytest.raises(CheckpointError, match="lacks tensors that its index names"):
        convert_wan(index.parent, out)


def test_an_index_cannot_point_elsewhere(tmp_path):
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": "../../etc/passwd"}}))
    with pytest.raises(CheckpointError, match="must name files beside it"):
        convert_wan(index, tmp_path / "out.safetensors")


class Evil:
    def __reduce__(self):
        return (print, ("code ran",))


def test_pickled_code_never_runs(tmp_path, capsys):
    path = tmp_path / "evil.pth"
    torch.save({"weight": Evil()}, path)
    with pytest.raises(CheckpointError, match="cannot be read safely"):
        convert_wan(path, tmp_path / "out.safetensors")
    assert "code ran" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"options": WanOptions(stem="latent")}, "needs the VAE's encoder"),
        ({"context": "two.safetensors"}, "must hold one tensor"),
        ({"context": "wide.safetensors"}, r"text features of shape \(rows, 12\)"),
    ],
)
def test_impossible_requests_are_refused(tmp_path, tensors, options, message):
    source = write_layout(tmp_path, "original", tensors)
    save_file({"a": torch.zeros(1), "b": torch.zeros(1)}, tmp_path / "two.safetensors")
    save_file({"a": torch.ones(1, 13)}, tmp_path / "wide.safetensors")
    if "context" in options:
        options = {"context": tmp_path / options["context"]}
    with pytest.raises(ValueError, match=message):
        convert_wan(source, tmp_path / "out.safetensors", **options)
