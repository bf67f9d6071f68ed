"""FlashVSR v1.1's files to a checkpoint, and what it then computes, against the formulas."""

import dataclasses
import json
import math

import pytest
import torch
import torch.nn.functional as F
from flashvsr_files import (
    LAYERS,
    NAMES,
    NUM_WORDS,
    REFERENCE,
    decoder_shapes,
    flashvsr_tensors,
    projector_shapes,
    write_flashvsr_files,
)
from infvsr_files import random_tensors, tiny_shapes, transformer_shapes
from safetensors.torch import load_file, save_file

from oasis_core.checkpoint import CheckpointError, load_checkpoint, read_header
from oasis_core.cli import main
from oasis_core.config import FLASHVSR
from oasis_core.convert import flashvsr
from oasis_core.convert.flashvsr import FlashvsrFiles, convert_flashvsr
from oasis_core.convert.fold import prompt_rows
from oasis_core.model.projector import latent_groups, stream_project
from oasis_core.model.wan_vae import stream_decode

SPARSE = dataclasses.replace(REFERENCE, sparse_ratio=0.14, local_range=3)
"""So few choices, and so near, that the attention of a small picture is sparse, too."""


@pytest.fixture(scope="module")
def tensors():
    return flashvsr_tensors()


@pytest.fixture(scope="module")
def folder(tmp_path_factory, tensors):
    folder = tmp_path_factory.mktemp("public")
    write_flashvsr_files(folder, tensors)
    return folder


def files_in(folder, **changes):
    paths = {part: folder / name for part, name in NAMES.items()}
    return FlashvsrFiles(**{**paths, **changes})


@pytest.fixture(scope="module")
def magnitudes(tensors):
    """As they would be published of these weights."""
    w = {name: x.double() for name, x in tensors[NAMES["transformer"]].items()}
    e, e0, context = conditions(w, tensors[NAMES["prompt"]].double())
    key, value = prompt_keys(w, 0, context)
    parts = {"e": e, "e0": e0, "key": key, "value": value}
    return {name: float(x.abs().max()) for name, x in parts.items()}


@pytest.fixture(scope="module")
def converted(tmp_path_factory, folder, magnitudes):
    out = tmp_path_factory.mktemp("out") / "flashvsr.safetensors"
    options = {"dtype": torch.float32, "reference": SPARSE, "magnitudes": magnitudes}
    convert_flashvsr(files_in(folder), out, **options)
    return out


@pytest.fixture(scope="module")
def model(converted):
    return load_checkpoint(converted).model


# The published formulas, on the published names, in float64


def linear(w, name, x):
    return F.linear(x, w[f"{name}.weight"].flatten(1), w[f"{name}.bias"])


def rms(w, name, x):
    return x * (x.square().mean(-1, keepdim=True) + 1e-6).rsqrt() * w[f"{name}.weight"]


def norm(w, x, name=None):
    affine = () if name is None else (w[f"{name}.weight"], w[f"{name}.bias"])
    return F.layer_norm(x, x.shape[-1:], *affine, eps=1e-6)


def conditions(w, prompt):
    half = w["time_embedding.0.weight"].shape[1] // 2
    angles = 1000.0 * 10000.0 ** (-torch.arange(half).double() / half)
    sinusoid = torch.cat([angles.cos(), angles.sin()])[None]
    e = linear(w, "time_embedding.2", F.silu(linear(w, "time_embedding.0", sinusoid)))
    e0 = linear(w, "time_projection.1", F.silu(e)).view(1, 6, -1)
    context = F.gelu(linear(w, "text_embedding.0", prompt), approximate="tanh")
    return e, e0, linear(w, "text_embedding.2", context)


def prompt_keys(w, layer, context):
    cross = f"blocks.{layer}.cross_attn"
    key = rms(w, f"{cross}.norm_k", linear(w, f"{cross}.k", context))
    return key, linear(w, f"{cross}.v", context)


def chosen_blocks(q, k, shape, config):
    """The selection for one head, by loops over blocks of 2 x 8 x 8 tokens.

    `q` and `k` are `t h w c`, frames of `k` before those of `q` in front.
    """
    _, h, w = shape
    rows, columns = h // 8, w // 8
    places = [(r, c) for r in range(rows) for c in range(columns)]

    def means(x):
        return [
            x[2 * s : 2 * s + 2, 8 * r : 8 * r + 8, 8 * c : 8 * c + 8].flatten(0, 2).mean(0)
            for s in range(len(x) // 2)
            for r, c in places
        ]

    keys, half, n = means(k), config.local_range // 2, len(places)
    number = int(n * n * (config.sparse_ratio * 768 * 1280 / (256 * h * w))) - 1
    chosen = []
    for start in range(0, len(means(q)), n):
        shares = []
        for (r, c), query in zip(places, means(q)[start : start + n], strict=True):
            row = []
            for index, key in enumerate(keys):
                dr, dc = places[index % n][0] - r, places[index % n][1] - c
                is_near = all(-half <= d < config.local_range - half for d in (dr, dc))
                score = float(query @ key) / math.sqrt(len(key))
                row.append(score if is_near else -math.inf)
            shares.append(torch.tensor(row, dtype=torch.float64).softmax(0))
        values = torch.cat(shares).sort(descending=True).values
        least = values[min(len(values) - 1, number)]
        chosen += [share > least for share in shares]
    return torch.stack(chosen)


def sparse_heads(q, k, v, shape, config):
    """Attention of all heads `k t h w c`, query by query block."""
    _, h, w = shape
    out = torch.zeros_like(q)
    places = [(r, c) for r in range(h // 8) for c in range(w // 8)]
    for head in range(len(q)):
        chosen = chosen_blocks(q[head], k[head], shape, config)
        boxes = [
            (slice(2 * s, 2 * s + 2), slice(8 * r, 8 * r + 8), slice(8 * c, 8 * c + 8))
            for s in range(k.shape[1] // 2)
            for r, c in places
        ]
        for index, picks in enumerate(chosen):
            if not picks.any():
                continue
            own = boxes[index]
            keys = torch.cat([k[head][boxes[i]].flatten(0, 2) for i in picks.nonzero()[:, 0]])
            values = torch.cat([v[head][boxes[i]].flatten(0, 2) for i in picks.nonzero()[:, 0]])
            scores = q[head][own].flatten(0, 2) @ keys.T / math.sqrt(keys.shape[1])
            out[head][own] = (scores.softmax(-1) @ values).view(out[head][own].shape)
    return out


def published_call(w, noise, added, prompt, past, start, config):
    """One call on latents `1 16 t h w`: the clean latent, and what each block keeps."""
    e, e0, context = conditions(w, prompt)
    t, h, width = noise.shape[2], noise.shape[3] // 2, noise.shape[4] // 2
    x = F.conv3d(noise, w["patch_embedding.weight"], w["patch_embedding.bias"], stride=(1, 2, 2))
    x = x.flatten(2).transpose(1, 2) + added
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
        pairs = torch.view_as_complex(x.reshape(1, x.shape[1], heads, 64, 2).contiguous())
        return torch.view_as_real(pairs * rotation).flatten(3)

    def in_space(x):
        return x.reshape(t, h, width, heads, 128).permute(3, 0, 1, 2, 4)

    def split(x):
        return x.unflatten(-1, (heads, -1)).transpose(1, 2)

    kept = []
    for i in range(config.num_layers):
        name = f"blocks.{i}"
        shift_a, scale_a, gate_a, shift_f, scale_f, gate_f = (w[f"{name}.modulation"] + e0).unbind(
            1
        )
        y = norm(w, x) * (1 + scale_a) + shift_a
        own = f"{name}.self_attn"
        q = in_space(rope(rms(w, f"{own}.norm_q", linear(w, f"{own}.q", y))))
        k = in_space(rope(rms(w, f"{own}.norm_k", linear(w, f"{own}.k", y))))
        v = in_space(linear(w, f"{own}.v", y))
        if past:
            k, v = (torch.cat(pair, dim=1) for pair in zip(past[i], (k, v), strict=True))
        kept.append((k[:, -6:], v[:, -6:]))
        out = sparse_heads(q, k, v, (t, h, width), config)
        out = out.permute(1, 2, 3, 0, 4).reshape(1, t * h * width, -1)
        x = x + gate_a * linear(w, f"{own}.o", out)
        cross, y = f"{name}.cross_attn", norm(w, x, f"{name}.norm3")
        q = split(rms(w, f"{cross}.norm_q", linear(w, f"{cross}.q", y)))
        k, v = (split(part) for part in prompt_keys(w, i, context))
        y = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        x = x + linear(w, f"{cross}.o", y)
        y = norm(w, x) * (1 + scale_f) + shift_f
        y = F.gelu(linear(w, f"{name}.ffn.0", y), approximate="tanh")
        x = x + gate_f * linear(w, f"{name}.ffn.2", y)
    shift, scale = (w["head.modulation"] + e[:, None]).unbind(1)
    x = linear(w, "head.head", norm(w, x) * (1 + scale) + shift)
    x = torch.einsum("bfhwpqrc->bcfphqwr", x.view(1, t, h, width, 1, 2, 2, 16))
    return noise - x.flatten(6).flatten(4, 5).flatten(2, 3), kept


def published_tokens(w, video):
    """The projector on all frames `1 3 4n+1 h w` in [-1, 1] at once: `1 n*h'*w' d`."""

    def conv(name, x):
        x = F.pad(x, (1, 1, 1, 1, 0, 0), mode="replicate")
        x = F.conv3d(x, w[f"{name}.weight"], w[f"{name}.bias"], stride=(2, 1, 1))
        gamma = w[name.replace("conv", "norm") + ".gamma"]
        return F.silu(F.normalize(x, dim=1, eps=1e-12) * x.shape[1] ** 0.5 * gamma)

    first = video[:, :, :1]
    x = torch.cat([first] * 5 + [video], dim=2)  # group 0 is frame 0 four times, after two more
    x = F.pixel_unshuffle(x.transpose(1, 2).flatten(0, 1), 16)[None].transpose(1, 2)
    x = conv("conv2", conv("conv1", x))
    return linear(w, "linear_layers.0", x.flatten(2).transpose(1, 2))


def published_frames(w, latents, video):
    """The decoder, layer by layer of its list, latent by latent: frames in [-1, 1].

    `latents` are `1 16 n h w`, `video` the frames `1 3 4n-3 8h 8w` in [-1, 1].
    """
    memory, frames = {}, []

    def conv(name, x):
        weight = w[f"{name}.weight"]
        return F.conv2d(x, weight, w.get(f"{name}.bias"), padding=weight.shape[-1] // 2)

    def run(x, index):
        if index == 27:
            frames.append(x)
            return
        if index == 0:
            x = 3 * torch.tanh(x / 3)
        elif index in (2, 4, 23, 25):
            x = F.relu(x)
        elif index in (8, 14, 20):
            x = F.interpolate(x, scale_factor=2, mode="nearest")
        elif f"decoder.{index}.conv.4.weight" in w:
            past = memory.get(index, torch.zeros_like(x))
            memory[index] = x
            y = F.relu(conv(f"decoder.{index}.conv.0", torch.cat([x, past], dim=1)))
            y = conv(f"decoder.{index}.conv.4", F.relu(conv(f"decoder.{index}.conv.2", y)))
            x = F.relu(y + x)
        elif f"decoder.{index}.conv.weight" in w:
            for part in conv(f"decoder.{index}.conv", x).split(x.shape[1], dim=1):
                run(part, index + 1)
            return
        else:
            x = conv(f"decoder.{index}", x)
        run(x, index + 1)

    padded = torch.cat([video[:, :, :1]] * 3 + [video], dim=2)
    for index in range(latents.shape[2]):
        group = padded[0, :, 4 * index : 4 * index + 4]
        # Colour, frame in the group, row, column; columns fastest.
        cells = F.pixel_unshuffle(group.flatten(0, 1)[None], 8)
        run(torch.cat([cells, latents[:, :, index]], dim=1), 0)
    return torch.stack(frames[3:], dim=2) * 2 - 1


# Parity


@pytest.mark.parametrize("num_latents", [6, 10])
def test_the_whole_step_equals_the_published_formulas(model, tensors, num_latents):
    """6 latent frames, then 2 and 2 more: the third call sees keys that the first left."""
    weights = {name: x.double() for name, x in tensors[NAMES["transformer"]].items()}
    prompt = tensors[NAMES["prompt"]].double()
    generator = torch.Generator().manual_seed(11)
    noise = torch.randn(1, 16, num_latents, 32, 48, generator=generator)
    added = torch.randn(1, num_latents, 16, 24, SPARSE.width, generator=generator)
    latents, past, start = [], None, 0
    with torch.inference_mode():
        while start < num_latents:
            stop = start + (2 if start else 6)
            latent, past = published_call(
                weights, noise[:, :, start:stop].double(),
                added[:, start:stop].flatten(1, 3).double(), prompt, past, start, SPARSE,
            )  # fmt: skip
            latents.append(latent)
            start = stop
        expected = torch.cat(latents, dim=2)
        got = model.predict_latent(noise, guide=added)
    assert (expected - noise).std() > 0.1
    assert (got - expected).abs().max() <= 1e-5


def test_projector_group_by_group_equals_the_whole_clip(model, tensors):
    weights = {name: x.double() for name, x in tensors[NAMES["projector"]].items()}
    video = torch.rand(1, 3, 25, 48, 64, generator=torch.Generator().manual_seed(12))
    with torch.inference_mode():
        expected = published_tokens(weights, video.double() * 2 - 1)
        got = stream_project(model.projector, video, 6)
        assert got.shape == (1, 6, 3, 4, REFERENCE.width)
        assert expected.std() > 0.1
        assert (got.flatten(1, 3) - expected).abs().max() <= 1e-5 * expected.abs().max()
        # Tokens of a latent frame see the four frames behind it, and nothing further.
        changed = video.clone()
        changed[:, :, 13:] = 0
        again = stream_project(model.projector, changed, 6)
        differs = (again - got).abs().amax(dim=(0, 2, 3, 4)) > 1e-6
        assert differs.tolist() == [False, False, False, True, True, True]
        # The last frame stands for those after the end.
        longer = torch.cat([video, video[:, :, -1:].expand(-1, -1, 8, -1, -1)], dim=2)
        assert torch.equal(
            stream_project(model.projector, video, 8), stream_project(model.projector, longer, 8)
        )


@pytest.mark.parametrize("num_latents", [1, 2, 5])
def test_decoder_that_looks_at_the_source(model, tensors, num_latents):
    weights = {name: x.double() for name, x in tensors[NAMES["tiny"]].items()}
    generator = torch.Generator().manual_seed(13)
    latents = 2 * torch.randn(1, 16, num_latents, 4, 6, generator=generator)
    video = torch.rand(1, 3, 4 * num_latents - 3, 32, 48, generator=generator)
    with torch.inference_mode():
        expected = published_frames(weights, latents.double(), video.double() * 2 - 1)
        expected = (expected * 0.5 + 0.5).clamp(0, 1)
        assert ((expected > 0) & (expected < 1)).double().mean() > 0.9
        guides = latent_groups(video, num_latents)
        got = torch.cat(list(stream_decode(model.tiny_decoder, latents, guides)), dim=2)
    assert got.shape == (1, 3, 4 * num_latents - 3, 32, 48)
    assert expected.std() > 0.05
    assert (got - expected).abs().max() <= 1e-5


def test_published_counts():
    shapes = transformer_shapes(1536, 30, 8960, 4096, 256)
    assert len(shapes) == 825
    assert sum(torch.Size(x).numel() for x in shapes.values()) == 1_418_996_800
    shapes = projector_shapes(1024, 1536)
    assert len(shapes) == 8
    assert sum(torch.Size(x).numel() for x in shapes.values()) == 287_845_888
    shapes = decoder_shapes(128)
    assert len(shapes) == 66
    assert sum(torch.Size(x).numel() for x in shapes.values()) == 45_338_371
    assert FLASHVSR.clip_stride == (4, 128, 128)


def test_padding_of_the_prompt_becomes_one_key(converted, tensors):
    config, _, info = read_header(converted)
    assert config.num_context_keys == NUM_WORDS + 1
    assert info["context"] == "stored prompt"
    got = load_file(converted)
    log_count = got["transformer.blocks.1.cross_attention.log_count"]
    assert log_count.exp().tolist() == pytest.approx([1.0] * NUM_WORDS + [512.0 - NUM_WORDS])
    weights = {name: x.double() for name, x in tensors[NAMES["transformer"]].items()}
    _, _, context = conditions(weights, tensors[NAMES["prompt"]].double())
    key, value = prompt_keys(weights, LAYERS - 1, context)
    prefix = f"transformer.blocks.{LAYERS - 1}.cross_attention"
    for name, expected in (("context_key", key), ("context_value", value)):
        assert (got[f"{prefix}.{name}"] - expected[0, : NUM_WORDS + 1]).abs().max() <= 1e-5
    rows, counts = prompt_rows(torch.ones(512, 3), 3)
    assert rows.shape == (512, 3)
    assert counts.tolist() == [0.0] * 512


@pytest.mark.parametrize("absent", ["vae", "tiny"])
def test_one_decoder_is_enough(tmp_path, folder, absent):
    out = tmp_path / "out.safetensors"
    files = files_in(folder, **{absent: None})
    info = convert_flashvsr(files, out, dtype=torch.float32, reference=REFERENCE, magnitudes={})
    config, _, _ = read_header(out)
    assert config.decoder == ("tiny" if absent == "vae" else "wan")
    assert set(info["files"]) == set(NAMES) - {absent}
    model = load_checkpoint(out).model
    video = torch.rand(1, 3, 9, 24, 40, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        padded = F.pad(video, (0, 8, 0, 8, 0, 0), mode="replicate")
        frames = padded + model(padded)
    assert frames.shape == (1, 3, 9, 32, 48)
    assert frames.isfinite().all()
    assert frames.std(dim=(3, 4)).min() > 0.01


def test_safetensors_copies_give_the_same_model(tmp_path, folder, tensors, converted, magnitudes):
    copies = {}
    for part in ("projector", "tiny"):
        copies[part] = tmp_path / f"{part}.safetensors"
        save_file(tensors[NAMES[part]], copies[part])
    copies["prompt"] = tmp_path / "Prompt.safetensors"
    save_file({"context": tensors[NAMES["prompt"]]}, copies["prompt"])
    out = tmp_path / "out.safetensors"
    options = {"dtype": torch.float32, "reference": SPARSE, "magnitudes": magnitudes}
    convert_flashvsr(files_in(folder, **copies), out, **options)
    own, again = load_file(converted), load_file(out)
    assert set(own) == set(again)
    assert all(torch.equal(x, again[name]) for name, x in own.items())


# The shell


def run_shell(folder, out, *extra):
    paths = {part: str(folder / name) for part, name in NAMES.items()}
    options = [
        x for part in ("projector", "prompt", "tiny", "vae") for x in (f"--{part}", paths[part])
    ]
    source = ["--source", "flashvsr-1.1", paths["transformer"], str(out)]
    return main(["convert", *source, *options, *extra])


def test_from_the_shell(tmp_path, folder, magnitudes, capsys, monkeypatch):
    out = tmp_path / "out.safetensors"
    assert run_shell(folder, out) == 1
    assert "is not FlashVSR: width must be 1536, got 256; give" in capsys.readouterr().err
    convert = convert_flashvsr
    monkeypatch.setattr(
        flashvsr,
        "convert_flashvsr",
        lambda *a, **k: convert(*a, **k, reference=REFERENCE, magnitudes=magnitudes),
    )
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert run_shell(folder, out) == 0
    text = capsys.readouterr().out
    assert "projector: LQ_proj_in.ckpt (not a file known here), sha256 " in text
    assert "licence Apache-2.0 (FlashVSR v1.1), Apache-2.0 (Wan2.1 VAE)" in text
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["out.safetensors"]
    assert main(["info", str(out), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["config"]["block_size"] == [2, 8, 8]
    assert facts["memory in bfloat16, 33 frames"]["8 GiB"].startswith("tiles of ")
    assert run_shell(folder, out, "--overwrite", "--timestep", "400") == 1
    assert "--timestep is for --source wan2.1; leave it out" in capsys.readouterr().err


def test_missing_parts_are_named(tmp_path, folder, capsys):
    source, out = str(folder / NAMES["transformer"]), str(tmp_path / "out.safetensors")
    assert main(["convert", "--source", "flashvsr-1.1", source, out]) == 1
    assert "needs --projector LQ_proj_in.ckpt and --prompt" in capsys.readouterr().err
    with pytest.raises(ValueError, match=r"give --tiny TCDecoder.ckpt, --vae Wan2.1_VAE.pth or"):
        convert_flashvsr(files_in(folder, tiny=None, vae=None), tmp_path / "out.safetensors")
    with pytest.raises(CheckpointError, match=r"weight file .*absent.ckpt does not exist"):
        convert_flashvsr(
            files_in(folder, projector=folder / "absent.ckpt"), tmp_path / "out.safetensors"
        )
    assert list(tmp_path.iterdir()) == []


class Evil:
    def __reduce__(self):
        return (print, ("code ran",))


def without(tensors, name):
    return {key: x for key, x in tensors.items() if key != name}


def channels_last(tensors):
    return {key: x.movedim(1, -1).contiguous() if x.ndim > 2 else x for key, x in tensors.items()}


SHAPES = transformer_shapes(256, 2, 40, 12, 16)
BAD = [
    ("transformer", lambda t: {"patch_embedding.weight": torch.zeros(5120, 16, 1, 2, 2)},
     "is a Wan of 14B; give diffusion_pytorch_model_streaming_dmd.safetensors of FlashVSR v1.1"),
    ("transformer", lambda t: random_tensors(SHAPES, seed=99),
     "is not FlashVSR v1.1: the largest magnitude of .* Wan2.1-T2V and v1.0 look the same"),
    ("transformer", lambda t: random_tensors(transformer_shapes(256, 3, 40, 12, 16)),
     "num_layers must be 2, got 3"),
    ("transformer", lambda t: without(t, "blocks.1.self_attn.norm_k.weight"),
     r"lacks tensors \(1\), e.g. the one called blocks.1.attention.norm_key.weight"),
    ("transformer", lambda t: {**t, "blocks.0.surprise": torch.zeros(1)},
     "tensors that Wan2.1 T2V does not have .*blocks.0.surprise"),
    ("transformer", lambda t: {"weight": Evil()}, "cannot be read safely"),
    ("projector", lambda t: random_tensors(projector_shapes(8, 256)), "must have a shape like"),
    ("projector", lambda t: without(t, "linear_layers.0.bias"), r"lacks tensors .*linear.bias"),
    ("projector", lambda t: {**t, "linear_layers.1.weight": torch.zeros(2, 2)}, "unknown tensors"),
    ("projector", lambda t: {"a": torch.zeros(1)}, "is no projector of FlashVSR; give LQ_proj_in"),
    ("projector", channels_last, "is laid out for MLX, its channels last; give LQ_proj_in.ckpt"),
    ("projector", lambda t: {**t, "conv1.bias": torch.full((8,), torch.inf)},
     "tensor conv1.bias holds NaN or infinity"),
    ("projector", None, "cannot be read safely"),
    ("tiny", lambda t: random_tensors(tiny_shapes()),
     "FlashVSR's own decoder, it is TAEHV, which does not look at the source: give TCDecoder"),
    ("tiny", lambda t: {"a": torch.zeros(1)}, "must be FlashVSR's own decoder, it is another file"),
    ("tiny", lambda t: without(t, "decoder.3.weight"), "lacks tensors .*more_in.weight"),
    ("tiny", None, "cannot be read safely"),
    ("prompt", lambda t: {"a": t, "b": t}, "must hold one tensor, the prompt's text features"),
    ("prompt", lambda t: t.flip(1) + 1, "with this prompt is not FlashVSR v1.1"),
    ("prompt", lambda t: {"a": Evil()}, "cannot be read safely"),
    ("vae", lambda t: {"x": torch.zeros(4)}, "is no Wan2.1 VAE"),
]  # fmt: skip


@pytest.mark.parametrize(("part", "change", "message"), BAD)
def test_other_and_broken_files_are_refused_by_name(
    tmp_path, folder, tensors, magnitudes, capsys, part, change, message
):
    bad, out = tmp_path / "bad.pth", tmp_path / "out" / "out.safetensors"
    out.parent.mkdir()
    if change is None:  # a download that stopped
        bad.write_bytes((folder / NAMES[part]).read_bytes()[:-3000])
    else:
        torch.save(change(tensors[NAMES[part]]), bad)
    content = bad.read_bytes()
    options = {"reference": REFERENCE, "magnitudes": magnitudes}
    with pytest.raises(CheckpointError, match=message) as caught:
        convert_flashvsr(files_in(folder, **{part: bad}), out, **options)
    assert "\n" not in str(caught.value)
    assert list(out.parent.iterdir()) == []
    assert bad.read_bytes() == content
    assert "code ran" not in capsys.readouterr().out


def test_a_prompt_of_another_width_is_refused(tmp_path, folder, magnitudes):
    prompt = tmp_path / "prompt.pth"
    torch.save(torch.randn(1, 512, 13), prompt)
    with pytest.raises(ValueError, match=r"text features of shape \(1 to 512, 12\), got \(1, 512"):
        convert_flashvsr(
            files_in(folder, prompt=prompt), tmp_path / "out.safetensors", reference=REFERENCE,
            magnitudes=magnitudes,
        )  # fmt: skip
    assert list(tmp_path.iterdir()) == [prompt]


@pytest.mark.parametrize(
    ("part", "name"),
    [
        ("transformer", "Wan2_1-T2V-1_3B_FlashVSR_fp32.safetensors"),
        ("projector", "Wan2_1_FlashVSR_LQ_proj_model_bf16.safetensors"),
    ],
)
def test_files_named_as_version_1_0_are_refused(tmp_path, folder, part, name):
    copy = tmp_path / name
    source = folder / NAMES[part]
    save_file(load_file(source) if source.suffix == ".safetensors" else torch.load(source), copy)
    with pytest.raises(CheckpointError, match=r"named as a file of FlashVSR v1.0, which is run"):
        convert_flashvsr(
            files_in(folder, **{part: copy}), tmp_path / "out.safetensors", reference=REFERENCE,
            magnitudes={},
        )  # fmt: skip
    assert list(tmp_path.iterdir()) == [copy]


def test_a_file_of_another_part_or_version_is_told_by_its_hash(tmp_path, folder, monkeypatch):
    """Mixed pairs: what is known as another file is refused whatever its name and shapes."""
    hashes = {part: f"{index:064x}" for index, part in enumerate(NAMES)}
    monkeypatch.setattr(flashvsr, "FLASHVSR_1_1", {p: h for p, h in hashes.items() if p != "vae"})
    monkeypatch.setattr(flashvsr, "PUBLIC", {f"{9:064x}": "somebody's projector of v1.0"})
    hashes["projector"] = f"{9:064x}"
    by_name = {NAMES[part]: sha256 for part, sha256 in hashes.items()}
    monkeypatch.setattr(
        "oasis_core.convert.weight_files.file_sha256", lambda path: by_name[path.name]
    )
    with pytest.raises(CheckpointError, match=r"LQ_proj_in.ckpt is somebody's projector of v1.0"):
        convert_flashvsr(
            files_in(folder), tmp_path / "out.safetensors", reference=REFERENCE, magnitudes={}
        )
    assert list(tmp_path.iterdir()) == []


def test_stopping_leaves_nothing(tmp_path, folder):
    seen = []

    def stop(done, total):
        seen.append((done, total))
        if done > total / 2:
            raise InterruptedError

    out = tmp_path / "out.safetensors"
    with pytest.raises(InterruptedError):
        convert_flashvsr(
            files_in(folder), out, reference=REFERENCE, magnitudes={}, on_progress=stop
        )
    assert list(tmp_path.iterdir()) == []
    assert len(seen) > 10
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert len({total for _, total in seen}) == 1
