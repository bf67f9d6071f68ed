"""InfVSR's files to a checkpoint, and what it then computes, against the published formulas."""

import json
import shutil
from collections import Counter

import pytest
import torch
import torch.nn.functional as F
from infvsr_files import (
    DEPTHS,
    REFERENCE,
    low_rank_shapes,
    public_tensors,
    random_tensors,
    transformer_shapes,
    vae_shapes,
    write_files,
)
from safetensors.torch import load_file, save_file

from oasis_core.checkpoint import CheckpointError, load_checkpoint, read_header
from oasis_core.cli import main
from oasis_core.config import INFVSR
from oasis_core.convert import infvsr, stream_file
from oasis_core.convert.infvsr import InfvsrFiles, convert_infvsr

NAMES = {
    "transformer": "InfVSR.ckpt",
    "visual": "ram_swin_large_14m.pth",
    "visual_lora": "DAPE.pth",
    "vae": "Wan2.1_VAE.pth",
    "tiny": "taew2_1.pth",
}


@pytest.fixture(scope="module")
def tensors():
    return public_tensors()


@pytest.fixture(scope="module")
def folder(tmp_path_factory, tensors):
    folder = tmp_path_factory.mktemp("public")
    write_files(folder, tensors)
    return folder


def files_in(folder, **changes):
    paths = {part: folder / name for part, name in NAMES.items()}
    return InfvsrFiles(**{**paths, **changes})


@pytest.fixture(scope="module")
def converted(tmp_path_factory, folder):
    out = tmp_path_factory.mktemp("out") / "infvsr.safetensors"
    convert_infvsr(files_in(folder), out, dtype=torch.float32, reference=REFERENCE)
    return out


@pytest.fixture(scope="module")
def model(converted):
    return load_checkpoint(converted).model


# The published formulas, on the published names


def published_step(w, latent, context, past, start):
    """One chunk `b 16 t h w` by the formulas of InfVSR: the velocity, and every block's keys and
    values for the next chunk. Everything in float64."""

    def linear(name, x):
        return F.linear(x, w[f"{name}.weight"].flatten(1), w[f"{name}.bias"])

    def norm(x, name=None):
        affine = () if name is None else (w[f"{name}.weight"], w[f"{name}.bias"])
        return F.layer_norm(x, x.shape[-1:], *affine, eps=1e-6)

    def rms(name, x):
        return x * (x.square().mean(-1, keepdim=True) + 1e-6).rsqrt() * w[f"{name}.weight"]

    half = w["time_embedding.0.weight"].shape[1] // 2
    angles = 400.0 * 10000.0 ** (-torch.arange(half).double() / half)
    sinusoid = torch.cat([angles.cos(), angles.sin()])[None]
    e = linear("time_embedding.2", F.silu(linear("time_embedding.0", sinusoid)))
    e0 = linear("time_projection.1", F.silu(e)).view(1, 6, -1)
    context = linear(
        "text_embedding.2", F.gelu(linear("text_embedding.0", context), approximate="tanh")
    )
    b, _, t, h, width = latent.shape
    h, width = h // 2, width // 2
    x = F.conv3d(latent, w["patch_embedding.weight"], w["patch_embedding.bias"], stride=(1, 2, 2))
    x = x.flatten(2).transpose(1, 2)
    heads = x.shape[-1] // 128
    axes = torch.meshgrid(
        torch.arange(start, start + t), torch.arange(h), torch.arange(width), indexing="ij"
    )
    rotation = torch.cat(
        [
            torch.outer(a.flatten().double(), 10000.0 ** (-torch.arange(0, n, 2).double() / n))
            for a, n in zip(axes, (44, 42, 42), strict=True)
        ],
        dim=1,
    )
    rotation = torch.polar(torch.ones_like(rotation), rotation)[:, None]

    def rope(x):
        pairs = torch.view_as_complex(x.reshape(b, x.shape[1], heads, 64, 2).contiguous())
        return torch.view_as_real(pairs * rotation).flatten(3).transpose(1, 2)

    def split(x):
        return x.unflatten(-1, (heads, -1)).transpose(1, 2)

    def attend(q, k, v):
        return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)

    kept = []
    for i in range(REFERENCE.num_layers):
        name = f"blocks.{i}"
        shift_a, scale_a, gate_a, shift_f, scale_f, gate_f = (w[f"{name}.modulation"] + e0).unbind(
            1
        )
        y = norm(x) * (1 + scale_a) + shift_a
        own = f"{name}.self_attn"
        q = rope(rms(f"{own}.norm_q", linear(f"{own}.q", y)))
        k = rope(rms(f"{own}.norm_k", linear(f"{own}.k", y)))
        v = split(linear(f"{own}.v", y))
        kept.append((k, v))
        if past:
            k, v = (torch.cat(pair, dim=2) for pair in zip(past[i], (k, v), strict=True))
        x = x + gate_a * linear(f"{own}.o", attend(q, k, v))
        cross, y = f"{name}.cross_attn", norm(x, f"{name}.norm3")
        q = split(rms(f"{cross}.norm_q", linear(f"{cross}.q", y)))
        k = split(rms(f"{cross}.norm_k", linear(f"{cross}.k", context)))
        v = split(linear(f"{cross}.v", context))
        x = x + linear(f"{cross}.o", attend(q, k, v))
        y = norm(x) * (1 + scale_f) + shift_f
        y = F.gelu(linear(f"{name}.ffn.0", y), approximate="tanh")
        x = x + gate_f * linear(f"{name}.ffn.2", y)
    shift, scale = (w["head.modulation"] + e[:, None]).unbind(1)
    x = linear("head.head", norm(x) * (1 + scale) + shift)
    x = x.view(b, t, h, width, 1, 2, 2, 16)
    return torch.einsum("bfhwpqrc->bcfphqwr", x).flatten(6).flatten(4, 5).flatten(2, 3), kept


@pytest.mark.parametrize("num_latents", [1, 5, 9])
def test_the_whole_step_equals_the_published_formulas(model, tensors, num_latents):
    weights = {name: x.double() for name, x in tensors["InfVSR.ckpt"].items()}
    generator = torch.Generator().manual_seed(5)
    source = torch.randn(1, 16, num_latents, 6, 8, generator=generator)
    context = torch.randn(1, 145, 12, generator=generator)
    velocities, past = [], None
    with torch.inference_mode():
        for start in range(0, num_latents, 3):
            chunk = source[:, :, start : start + 3].double()
            velocity, past = published_step(weights, chunk, context.double(), past, start)
            velocities.append(velocity)
        velocity = torch.cat(velocities, dim=2)
        sigma = 5 * 0.118 / (1 + 4 * 0.118)
        expected = source - sigma * velocity
        got = model.predict_latent(source, context)
    assert sigma == pytest.approx(0.40082, abs=5e-6)
    assert velocity.std() > 0.1
    assert (got - expected).abs().max() <= 1e-5


def test_context_is_the_first_frame_with_the_additions_on_queries_and_values(model, tensors):
    """K stays; Q and V rows change by B A / 8."""
    ram, dape = tensors["ram_swin_large_14m.pth"], tensors["DAPE.pth"]
    prefix = "visual_encoder.layers.2.blocks.7.attn.qkv"
    n = 4 * 32
    a, b = dape[f"{prefix}.lora_A"], dape[f"{prefix}.lora_B"]
    expected = ram[f"{prefix}.weight"].clone()
    for row in range(n):
        expected[row] += b[row] @ a[:8] / 8
        expected[2 * n + row] += b[n + row] @ a[8:] / 8
    weight = model.visual.stages[2][7].qkv.weight
    assert (weight - expected).abs().max() <= 1e-6
    assert torch.equal(weight[n : 2 * n], ram[f"{prefix}.weight"][n : 2 * n])
    # The same by torch's grouped convolution, as the additions are trained.
    delta = F.conv1d(a[None], b[:, :, None], groups=2)[0] / 8
    assert (weight[:n] - ram[f"{prefix}.weight"][:n] - delta[:n]).abs().max() <= 1e-6
    video = torch.rand(1, 3, 5, 40, 56, generator=torch.Generator().manual_seed(6))
    with torch.inference_mode():
        context = model.context(video)
        video[:, :, 1:] = 0
        assert torch.equal(context, model.context(video))
    assert context.shape == (1, 145, 12)
    assert context.std() > 0.05


def test_every_public_part_is_in_the_file(converted, tensors):
    got = load_file(converted)
    assert torch.equal(
        got["transformer.blocks.1.attention.query.weight"],
        tensors["InfVSR.ckpt"]["blocks.1.self_attn.q.weight"],
    )
    vae, tiny = tensors["Wan2.1_VAE.pth"], tensors["taew2_1.pth"]
    assert torch.equal(got["encoder.conv_in.weight"], vae["encoder.conv1.weight"])
    assert torch.equal(got["wan_decoder.conv_out.bias"], vae["decoder.head.2.bias"])
    assert torch.equal(got["tiny_encoder.conv_out.bias"], tiny["encoder.17.bias"])
    grow = tiny["decoder.7.conv.weight"]
    assert torch.equal(got["tiny_decoder.stages.0.grow.weight"], grow[len(grow) // 2 :])


def test_published_counts():
    assert len(transformer_shapes(1536, 30, 8960, 512, 256)) == 825
    sizes = transformer_shapes(1536, 30, 8960, 512, 256)
    assert sum(torch.Size(shape).numel() for shape in sizes.values()) == 1_413_491_776
    assert sizes["text_embedding.0.weight"] == (1536, INFVSR.text_channels) == (1536, 512)
    assert len(vae_shapes(96)) == 194
    sizes = vae_shapes(96).values()
    assert sum(torch.Size(shape).numel() for shape in sizes) == 126_892_531
    assert len(low_rank_shapes(192)) == 2 * sum(DEPTHS)


@pytest.mark.parametrize("main_part", ["vae", "tiny"])
def test_one_vae_is_enough(tmp_path, folder, main_part):
    out = tmp_path / "out.safetensors"
    other = "tiny" if main_part == "vae" else "vae"
    files = files_in(folder, **{other: None})
    info = convert_infvsr(files, out, dtype=torch.float32, reference=REFERENCE)
    config, _, _ = read_header(out)
    name = "wan" if main_part == "vae" else "tiny"
    assert (config.encoder, config.decoder) == (name, name)
    assert (config.vae_width > 0) == (main_part == "vae")
    assert (config.tiny_width > 0) == (config.tiny_encoder_width > 0) == (main_part == "tiny")
    assert set(info["files"]) == {"transformer", "visual", "visual_lora", main_part}
    model = load_checkpoint(out).model
    video = torch.rand(1, 3, 13, 32, 48, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        frames = video + model(video)
    assert frames.isfinite().all()
    assert frames.std(dim=(3, 4)).min() > 0.01


def run_shell(folder, out, *extra):
    paths = [str(folder / name) for name in NAMES.values()]
    source, visual, lora, vae, tiny = paths
    options = ["--visual", visual, "--visual-lora", lora, "--vae", vae, "--tiny", tiny]
    return main(["convert", "--source", "infvsr", source, str(out), *options, *extra])


def test_from_the_shell(tmp_path, folder, capsys, monkeypatch):
    out = tmp_path / "out.safetensors"
    assert run_shell(folder, out) == 1
    assert "is not InfVSR: width must be 1536, got 128; give InfVSR.ckpt" in capsys.readouterr().err
    convert = convert_infvsr
    monkeypatch.setattr(
        infvsr, "convert_infvsr", lambda *a, **k: convert(*a, **k, reference=REFERENCE)
    )
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert run_shell(folder, out) == 0
    text = capsys.readouterr().out
    assert "transformer: InfVSR.ckpt (not a file known here), sha256 " in text
    assert "MIT (InfVSR), Apache-2.0 (Wan2.1 VAE)" in text
    assert "visual: 1 tensor not used, e.g. label_embed" in text
    assert "visual_lora: " in text
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["out.safetensors"]
    assert main(["info", str(out), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["config"]["chunk_latents"] == 3
    assert (
        load_checkpoint(out).model.transformer.blocks[0].ffn.expand.weight.dtype == torch.bfloat16
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--stem", "latent"], "--stem is for --source wan2.1; leave it out"),
        (["--timestep", "400"], "--timestep is for --source wan2.1"),
        (["--keep-timestep"], "--keep-timestep is for --source wan2.1"),
    ],
)
def test_options_of_the_other_source_are_refused(tmp_path, folder, capsys, options, message):
    assert run_shell(folder, tmp_path / "out.safetensors", *options) == 1
    assert message in capsys.readouterr().err


def test_missing_parts_are_named(tmp_path, folder, capsys):
    source, out = str(folder / "InfVSR.ckpt"), str(tmp_path / "out.safetensors")
    assert main(["convert", "--source", "infvsr", source, out]) == 1
    assert "needs --visual ram_swin_large_14m.pth and --visual-lora" in capsys.readouterr().err
    with pytest.raises(ValueError, match=r"give --vae Wan2.1_VAE.pth, --tiny taew2_1.pth or both"):
        convert_infvsr(files_in(folder, vae=None, tiny=None), tmp_path / "out.safetensors")
    with pytest.raises(CheckpointError, match=r"weight file .*absent.pth does not exist"):
        convert_infvsr(
            files_in(folder, visual=folder / "absent.pth"),
            tmp_path / "out.safetensors",
            reference=REFERENCE,
        )


class Evil:
    def __reduce__(self):
        return (print, ("code ran",))


def without(tensors, name):
    return {key: x for key, x in tensors.items() if key != name}


QKV = "visual_encoder.layers.3.blocks.1.attn.qkv"
BAD = [
    ("transformer", lambda t: random_tensors(transformer_shapes(context=4096)),
     "is the transformer of Wan2.1-T2V, guided by text of 4096 channels; InfVSR's own has 12"),
    ("transformer", lambda t: random_tensors(transformer_shapes(context=13)),
     "text_channels must be 12, got 13; give InfVSR.ckpt"),
    ("transformer", lambda t: random_tensors(transformer_shapes(layers=3)),
     "num_layers must be 2, got 3"),
    ("transformer", lambda t: {"patch_embedding.weight": torch.zeros(5120, 16, 1, 2, 2)},
     "is a Wan of 14B; give InfVSR.ckpt"),
    ("transformer", lambda t: without(t, "blocks.1.self_attn.norm_k.weight"),
     r"lacks tensors \(1\), e.g. the one called blocks.1.attention.norm_key.weight"),
    ("transformer", lambda t: {**t, "blocks.0.surprise": torch.zeros(1)},
     "tensors that Wan2.1 T2V does not have .*blocks.0.surprise"),
    ("transformer", lambda t: {**t, "head.head.bias": torch.full((64,), torch.nan)},
     "tensor head.head.bias holds NaN or infinity"),
    ("transformer", lambda t: {"weight": Evil()}, "cannot be read safely"),
    ("transformer", None, "cannot be read safely"),
    ("visual", lambda t: {"label_embed": torch.zeros(1)}, "holds no visual encoder; give RAM's"),
    ("visual", lambda t: without(t, f"{QKV}.bias"), "lacks tensors .*stages.3.1.qkv.bias"),
    ("visual", lambda t: {**t, "visual_encoder.head.weight": torch.zeros(1)}, "unknown tensors"),
    ("visual", lambda t: {**t, f"{QKV}.bias": torch.zeros(5)}, "qkv.bias must have a shape like"),
    ("visual", None, "cannot be read safely"),
    ("visual_lora", lambda t: {"a": torch.zeros(1)}, "no low-rank additions; give SeeSR's DAPE"),
    ("visual_lora", lambda t: without(t, f"{QKV}.lora_B"), "lacks a low-rank addition, the one to"),
    ("visual_lora", lambda t: {**t, f"{QKV}.lora_A": torch.zeros(15, 256)}, "must have shapes"),
    ("visual_lora", lambda t: {**t, "text_decoder.lora_A": torch.zeros(2, 2)},
     "adds to what is not known here, text_decoder.lora_A; it is not SeeSR's DAPE.pth"),
    ("visual_lora", lambda t: {**t, "layers.9.blocks.0.attn.qkv.lora_A": torch.zeros(2, 2)},
     "changes layers that the visual encoder does not have"),
    ("vae", lambda t: {"decoder.head.0.gamma": torch.zeros(4)}, "lacks tensors"),
    ("vae", lambda t: {"x": torch.zeros(4)}, "is no Wan2.1 VAE"),
    ("tiny", lambda t: without(t, "encoder.12.conv.weight"), "lacks tensors .*stages.2.pool"),
    ("tiny", lambda t: {k: x for k, x in t.items() if k.startswith("decoder")},
     "holds no encoder of TAEHV"),
]  # fmt: skip


@pytest.mark.parametrize(("part", "change", "message"), BAD)
def test_other_and_broken_files_are_refused_by_name(
    tmp_path, folder, tensors, capsys, part, change, message
):
    bad, out = tmp_path / "bad.pth", tmp_path / "out" / "out.safetensors"
    out.parent.mkdir()
    if change is None:  # a download that stopped
        bad.write_bytes((folder / NAMES[part]).read_bytes()[:-3000])
    else:
        torch.save(change(tensors[NAMES[part]]), bad)
    content = bad.read_bytes()
    with pytest.raises(CheckpointError, match=message) as caught:
        convert_infvsr(files_in(folder, **{part: bad}), out, reference=REFERENCE)
    assert "\n" not in str(caught.value)
    assert list(out.parent.iterdir()) == []
    assert bad.read_bytes() == content
    assert "code ran" not in capsys.readouterr().out


def test_a_full_disk_is_said_before_anything_is_written(tmp_path, folder, monkeypatch):
    out = tmp_path / "out.safetensors"
    usage = Counter(total=0, used=0, free=0)
    monkeypatch.setattr(
        stream_file.shutil,
        "disk_usage",
        lambda path: shutil._ntuple_diskusage(usage["total"], usage["used"], 12_000),
    )
    with pytest.raises(ValueError, match=r"needs 0.01 GB and the disk has 0.00 GB free there"):
        convert_infvsr(files_in(folder), out, reference=REFERENCE)
    assert list(tmp_path.iterdir()) == []


def test_a_write_that_fails_leaves_nothing(tmp_path, folder, monkeypatch):
    out = tmp_path / "out.safetensors"
    out.write_bytes(b"of the user")
    monkeypatch.setattr(stream_file.os, "fsync", lambda _: (_ for _ in ()).throw(OSError("full")))
    with pytest.raises(OSError, match="full"):
        convert_infvsr(files_in(folder), out, reference=REFERENCE)
    assert [path.name for path in tmp_path.iterdir()] == ["out.safetensors"]
    assert out.read_bytes() == b"of the user"
    part = tmp_path / "out.safetensors.part"
    part.write_bytes(b"of the user, too")
    with pytest.raises(ValueError, match="must not exist: another conversion writes it"):
        convert_infvsr(files_in(folder), out, reference=REFERENCE)
    assert part.read_bytes() == b"of the user, too"


def test_streamed_files_are_what_safetensors_writes(tmp_path):
    tensors = {"a": torch.randn(3, 5), "b": torch.randn(7).bfloat16(), "c": torch.tensor(2.0)}
    layout = {name: (x.dtype, tuple(x.shape)) for name, x in tensors.items()}
    stream_file.write_streamed(tmp_path / "own", layout, tensors.__getitem__, {"k": "v"})
    save_file(tensors, tmp_path / "theirs", metadata={"k": "v"})
    own, theirs = load_file(tmp_path / "own"), load_file(tmp_path / "theirs")
    assert all(torch.equal(own[name], x) for name, x in theirs.items())
    assert len(own) == len(theirs) == 3
    assert stream_file.layout_bytes(layout) == 60 + 14 + 4
