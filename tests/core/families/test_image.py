"""Image upscalers through the engine, held against spandrel called frame by frame."""

import json
import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from films import write_film
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import oasis_core
from oasis_core.cli import main
from oasis_core.families.catalog import open_restorer
from oasis_core.families.image import MOST_OVERLAP_PX, from_descriptor
from oasis_core.upscale import VideoUpscaler, upscale_file
from oasis_core.video.pixels import resize

ROOT = Path(__file__).resolve().parents[3]
NAMES = ("4x-compact", "2x-rrdb")
SCALES = {"4x-compact": 4, "2x-rrdb": 2, "3x-compact": 3, "1x-compact": 1}


def frames_of(num_frames=6, width=150, height=117, seed=0):
    """Moving texture with fine and coarse parts, `h w 3` uint8."""
    generator = np.random.default_rng(seed)
    coarse = generator.integers(30, 220, (height // 9 + 3, width // 9 + 3, 3)).repeat(9, 0)
    coarse = coarse.repeat(9, 1).astype(float)
    fine = generator.normal(0, 12, coarse.shape)
    picture = np.clip(coarse + fine, 0, 255).astype(np.uint8)
    return [picture[i : i + height, i : i + width].copy() for i in range(num_frames)]


def pictures(folder):
    found = []
    for path in sorted(folder.glob("*.png")):
        with av.open(str(path)) as container:
            found.append(next(container.decode(video=0)).to_ndarray(format="rgb24"))
    return found


def steps_apart(frames, expected):
    """Largest difference in 8-bit steps between `h w 3` uint8 and `t 3 h w` in [0, 1]."""
    wanted = (expected * 255).round().permute(0, 2, 3, 1).numpy()
    return max(np.abs(a.astype(int) - b).max() for a, b in zip(frames, wanted, strict=True))


def as_video(frames):
    return torch.from_numpy(np.stack(frames)).permute(3, 0, 1, 2)[None].float() / 255


@pytest.mark.parametrize("tile", [None, 240], ids=["whole", "tiled"])
@pytest.mark.parametrize("name", NAMES)
def test_a_film_is_what_spandrel_makes_of_its_frames(models, alone, tmp_path, name, tile):
    frames = frames_of()
    source = write_film(tmp_path / "in.mkv", frames)
    upscaler = oasis_core.load(models[name], device="cpu", dtype="float32")
    report = upscale_file(
        source, tmp_path / "out_%03d.png", upscaler=upscaler, scale=SCALES[name],
        color_anchor=False, segment_frames=4, tile_px=tile,
    )  # fmt: skip
    expected = alone(models[name], frames)
    assert expected.std() > 0.1
    assert report.frames == len(frames)
    assert steps_apart(pictures(tmp_path), expected) <= 1


def test_tiles_are_exact_where_they_overlap_by_four_times_the_reach(models):
    video, upscaler = as_video(frames_of(1)), oasis_core.load(models["4x-compact"], "cpu")
    assert upscaler.traits.overlap_px >= 4 * 5  # five convolutions of 3x3
    whole = upscaler.upscale(video, scale=4)
    tiled = upscaler.upscale(video, scale=4, tile_px=192)
    assert torch.allclose(whole, tiled, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("3x-compact", (375, 293)),  # 2.5 times
        ("4x-compact", (300, 234)),
        ("2x-rrdb", (600, 468)),
        ("4x-compact", (301, 468)),
        ("1x-compact", (150, 117)),
    ],
)
def test_any_size_is_the_models_own_picture_resized(models, alone, name, size):
    frames = frames_of(2)
    upscaler = oasis_core.load(models[name], device="cpu", dtype="float32")
    got = upscaler.upscale(as_video(frames), size=size, color_anchor=False)[0]
    own = alone(models[name], frames)
    for index in range(len(frames)):
        expected = resize(own[index : index + 1], size[1], size[0]).clamp(0, 1)
        assert (got[:, index] - expected).abs().max() < 1e-5


def test_strength_goes_from_the_plain_resize_to_the_model(models):
    video = as_video(frames_of(3))
    upscaler = oasis_core.load(models["4x-compact"], device="cpu", dtype="float32")
    options = {"scale": 4, "color_anchor": False}
    plain, half, full = (
        upscaler.upscale(video, strength=share, **options) for share in (0.0, 0.5, 1.0)
    )
    frame = resize(video[0, :, 1][None], 468, 600).clamp(0, 1)
    assert torch.equal(plain[0, :, 1], frame)
    inside = (half > 0) & (half < 1)
    assert torch.allclose(half[inside], ((plain + full) / 2)[inside], atol=2e-2)
    assert (half - plain).abs().mean() > 0.3 * (full - plain).abs().mean()


def test_the_colour_anchor_keeps_the_sources_low_frequencies(models, spandrel, make_compact):
    state = make_compact(4)
    name = max(name for name in state if name.endswith("bias"))
    state[name] = state[name] + 0.3  # a model that brightens everything
    descriptor = spandrel.MAIN_REGISTRY.load(state)
    upscaler = VideoUpscaler(from_descriptor(descriptor), "cpu", "float32")
    video = as_video(frames_of(2)) * 0.5 + 0.1
    free, held = (upscaler.upscale(video, scale=4, color_anchor=on) for on in (False, True))
    target = video.mean()
    assert (free.mean() - target) > 0.1
    assert abs(held.mean() - target) < 0.02


def test_transparency_goes_past_the_model(models, tmp_path):
    generator = np.random.default_rng(0)
    pixels = generator.integers(0, 255, (40, 48, 4), dtype=np.uint8)
    with av.open(str(tmp_path / "in.png"), "w") as container:
        stream = container.add_stream("png", rate=1)
        stream.width, stream.height, stream.pix_fmt = 48, 40, "rgba"
        container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgba")))
        container.mux(stream.encode(None))
    upscaler = oasis_core.load(models["2x-rrdb"], device="cpu", dtype="float32")
    upscale_file(tmp_path / "in.png", tmp_path / "out.png", upscaler=upscaler, scale=2)
    with av.open(str(tmp_path / "out.png")) as container:
        result = next(container.decode(video=0)).to_ndarray(format="rgba")
    alpha = torch.from_numpy(pixels[..., 3])[None, None].float() / 255
    wanted = resize(alpha.expand(1, 3, -1, -1), 80, 96)[0].clamp(0, 1) * 255
    assert np.abs(result[..., 3].astype(int) - wanted.round().numpy()).max() <= 1


def test_an_interrupted_film_goes_on_to_the_same_bytes(models, tmp_path):
    source = write_film(tmp_path / "in.mkv", frames_of(12, 40, 32))
    upscaler = oasis_core.load(models["4x-compact"], device="cpu", dtype="float32")
    options = {"upscaler": upscaler, "scale": 4, "codec": "ffv1", "segment_frames": 3}
    upscale_file(source, tmp_path / "whole.mkv", **options)

    def stop(done, total):
        if done > 7:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        upscale_file(source, tmp_path / "out.mkv", on_progress=stop, **options)
    assert not (tmp_path / "out.mkv").exists()
    report = upscale_file(source, tmp_path / "out.mkv", **options)
    assert report.num_resumed_segments == 2
    assert (tmp_path / "out.mkv").read_bytes() == (tmp_path / "whole.mkv").read_bytes()


def test_half_precision_that_overflows_is_repeated_in_float32(spandrel, make_compact, caplog):
    state = make_compact(2)
    state["body.0.weight"] *= 1e6
    state["body.0.bias"] *= 1e6
    state["body.2.weight"] *= 1e-6
    upscaler = VideoUpscaler(from_descriptor(spandrel.MAIN_REGISTRY.load(state)), "cpu", "float16")
    video = as_video(frames_of(1, 48, 40))
    got = upscaler.upscale(video, scale=2, color_anchor=False)
    assert "repeating in float32" in caplog.text
    exact = VideoUpscaler(upscaler.restorer, "cpu", "float32")
    assert torch.allclose(got, exact.upscale(video, scale=2, color_anchor=False), atol=2e-3)


def test_another_programs_model_is_copied_and_told_apart(spandrel, make_compact):
    descriptor = spandrel.MAIN_REGISTRY.load(make_compact(2))
    restorer = from_descriptor(descriptor)
    assert restorer.network is not descriptor.model
    assert not descriptor.model._forward_hooks
    assert restorer.traits.name == "RealESRGAN Compact 2x"
    assert restorer.identity == from_descriptor(descriptor).identity
    other = spandrel.MAIN_REGISTRY.load(make_compact(2, seed=5))
    assert restorer.identity != from_descriptor(other).identity


def test_traits_follow_what_spandrel_says(models, spandrel):
    traits = open_restorer(models["2x-rrdb"]).traits
    assert (traits.reads, traits.native_scale, traits.is_per_frame) == ("source", 2, True)
    assert (traits.stride, traits.least_side) == ((1, 1, 1), 2)
    assert traits.overlap_px == MOST_OVERLAP_PX
    assert traits.dtypes == ("float32", "bfloat16", "float16")


def test_arithmetic_that_a_model_cannot_do_is_refused(spandrel, make_compact):
    descriptor = spandrel.MAIN_REGISTRY.load(make_compact(2))
    descriptor.supports_half = False
    with pytest.raises(ValueError, match=r"can compute in \(float32, bfloat16\), got float16"):
        VideoUpscaler(from_descriptor(descriptor), "cpu", "float16")


# The shell


def test_the_shell_takes_a_model_file_and_its_own_scale(models, alone, tmp_path, capsys):
    frames = frames_of(2, 40, 32)
    source = write_film(tmp_path / "in.mkv", frames)
    words = ["upscale", str(source), str(tmp_path / "%d.png"), "--color-anchor", "off"]
    words += ["--model", str(models["2x-rrdb"]), "--dtype", "float32", "--device", "cpu"]
    assert main([*words, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["width"], report["height"], report["model"]) == (80, 64, "2x-rrdb")
    assert steps_apart(pictures(tmp_path), alone(models["2x-rrdb"], frames)) <= 1
    assert main([*words, "--scale", "6", "--overwrite", "--dry-run"]) == 0
    assert "6x" in capsys.readouterr().out


def test_a_pickle_is_converted_once_and_described(make_rrdb, tmp_path, capsys):
    torch.save({"params_ema": make_rrdb(), "iter": 3}, tmp_path / "net.pth")
    out = tmp_path / "net.safetensors"
    assert main(["upscale", "a.mp4", "b.mp4", "--model", str(tmp_path / "net.pth")]) == 1
    assert "oasis convert net.pth net.safetensors" in capsys.readouterr().err
    words = ["convert", str(tmp_path / "net.pth"), str(out)]
    assert main([*words, "--licence", "CC-BY-4.0", "--origin", "https://example.org/net"]) == 0
    assert "ESRGAN, 2x; licence CC-BY-4.0" in capsys.readouterr().out
    assert main(["info", str(out), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["architecture"], facts["scale"]) == ("ESRGAN", 2)
    assert (facts["licence"], facts["source"]) == ("CC-BY-4.0", "https://example.org/net")
    assert facts["bytes"] == out.stat().st_size
    again = tmp_path / "again.safetensors"
    assert main(["convert", str(out), str(again)]) == 0
    with safe_open(again, "pt") as copy, safe_open(out, "pt") as first:
        assert copy.metadata() == first.metadata()
    assert load_file(again).keys() == load_file(out).keys()


# What is refused


def save(path, state):
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, path)
    return path


def bad_unknown(path, make_compact):
    return save(path, {"blocks.0.weight": torch.zeros(4, 4)})


def bad_grey(path, make_compact):
    return save(path, make_compact(2, channels=1))


def bad_four_channels(path, make_compact):
    return save(path, make_compact(2, channels=4))


def bad_overflown(path, make_compact):
    state = {name: (tensor * 1e6).half() for name, tensor in make_compact(2).items()}
    return save(path, state)


def bad_incomplete(path, make_compact):
    state = make_compact(2)
    del state["body.2.bias"]
    return save(path, state)


def bad_cut(path, make_compact):
    save(path, make_compact(2))
    path.write_bytes(path.read_bytes()[:-40])
    return path


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (bad_unknown, "is not an oasis checkpoint, nor an image model that spandrel"),
        (bad_grey, "must read and write 3 channels (RGB), it reads 1 and writes 1"),
        (bad_four_channels, "must read and write 3 channels (RGB), it reads 4 and writes 4"),
        (bad_overflown, "holds NaN or infinity"),
        (bad_incomplete, "is incomplete or damaged"),
        (bad_cut, "cannot be read"),
    ],
)
def test_files_that_are_of_no_use(make, message, make_compact, tmp_path, capsys):
    path = make(tmp_path / "model.safetensors", make_compact)
    source = write_film(tmp_path / "in.mkv", frames_of(1, 40, 32))
    words = ["upscale", str(source), str(tmp_path / "out.mp4"), "--model", str(path)]
    assert main(words) == 1
    error = capsys.readouterr().err
    assert message in error
    assert [line for line in error.splitlines() if not line.startswith("loading ")] == [
        error.splitlines()[-1]
    ]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in.mkv", "model.safetensors"]


def test_models_for_faces_and_for_masks(spandrel, make_compact):
    from spandrel.architectures.Compact import Compact, CompactArch

    state, network = make_compact(2), Compact(num_feat=8, num_conv=3, upscale=2)
    common = {"tags": [], "supports_half": True, "supports_bfloat16": True, "input_channels": 3}
    common |= {"architecture": CompactArch(), "output_channels": 3}
    face = spandrel.ImageModelDescriptor(network, state, purpose="FaceSR", scale=2, **common)
    with pytest.raises(ValueError, match="restores cropped faces only"):
        from_descriptor(face)
    masked = spandrel.MaskedImageModelDescriptor(network, state, purpose="Inpainting", **common)
    with pytest.raises(ValueError, match="fills masked parts of an image"):
        from_descriptor(masked)


def test_a_model_that_only_restores_enlarges_nothing(models, tmp_path, capsys):
    source = write_film(tmp_path / "in.mkv", frames_of(2, 40, 32))
    words = [
        "upscale",
        str(source),
        str(tmp_path / "out.mkv"),
        "--model",
        str(models["1x-compact"]),
    ]
    assert main([*words, "--scale", "4"]) == 1
    assert "restores at 1x and enlarges nothing, got 160x128 from 40x32" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["in.mkv"]
    assert main([*words, "--codec", "ffv1"]) == 0  # its own scale


class RunsCode:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return Path.touch, (self.marker,)


@pytest.mark.parametrize("kind", ["truncated", "code", "old truncated", "page", "empty", "numbers"])
def test_pickles_that_are_not_read(kind, spandrel, make_compact, tmp_path, capsys):
    path, marker = tmp_path / "net.pth", tmp_path / "ran"
    state = make_compact(2)
    if kind == "code":
        torch.save({"params": state, "extra": RunsCode(marker)}, path)
    elif kind == "page":
        path.write_text("<!doctype html><title>Sign in</title>")
    elif kind == "empty":
        path.touch()
    elif kind == "numbers":
        torch.save({"epoch": 3, "loss": [0.1]}, path)
    else:
        torch.save(state, path, _use_new_zipfile_serialization=kind == "truncated")
        path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    assert main(["convert", str(path), str(tmp_path / "net.safetensors")]) == 1
    error = capsys.readouterr().err
    code = "holds other things than tensors, which could be code"
    wanted = {"code": code, "page": code, "numbers": "must hold named tensors"}
    assert wanted.get(kind, "is damaged or incomplete") in error
    assert error.count("\n") == 1
    assert [p.name for p in tmp_path.iterdir()] == ["net.pth"]


def test_without_spandrel_one_sentence_names_the_extra(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "spandrel", None)
    path = save(tmp_path / "4x.safetensors", {"body.0.weight": torch.zeros(4, 3, 3, 3)})
    for words in (["info", str(path)], ["convert", str(path), str(tmp_path / "out.safetensors")]):
        assert main(words) == 1
        error = capsys.readouterr().err
        assert "pip install 'oasis-video-upscaler[image-models]'" in error
        assert error.count("\n") == 1
    assert [p.name for p in tmp_path.iterdir()] == ["4x.safetensors"]


@pytest.mark.slow
def test_memory_does_not_grow_with_the_film(models, tmp_path):
    code = (
        "import resource, sys\n"
        "import oasis_core\n"
        "model, source, out = sys.argv[1:]\n"
        "upscaler = oasis_core.load(model, 'cpu', 'float32')\n"
        "report = oasis_core.upscale_file(source, out, model=upscaler, scale=2)\n"
        "print(report.frames, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)\n"
    )
    peaks = {}
    for num_frames in (300, 3000):
        frames = frames_of(30, 32, 32)
        source = write_film(tmp_path / f"{num_frames}.mkv", frames * (num_frames // 30))
        command = [sys.executable, "-c", code, str(models["2x-rrdb"]), str(source)]
        done = subprocess.run(
            [*command, str(source.with_suffix(".mp4"))],
            cwd=ROOT, capture_output=True, text=True, check=True,
        )  # fmt: skip
        count, peak = map(int, done.stdout.split())
        assert count == num_frames
        peaks[num_frames] = peak if sys.platform != "darwin" else peak // 1024
    assert peaks[3000] - peaks[300] < 64 * 1024  # KiB
