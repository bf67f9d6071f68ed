import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from oasis_core.evaluation import peers as peers_module
from oasis_core.evaluation.benchmark import evaluate
from oasis_core.evaluation.clips import ClipSource, EvaluationError
from oasis_core.evaluation.peers import Lanczos, NcnnModel, ResultCache, find_peers, lanczos_weights
from oasis_core.evaluation.pictures import encode_picture
from oasis_core.evaluation.suite import MetricSuite
from oasis_core.extras import MissingExtraError

REAL = os.environ.get("OASIS_METRIC_WEIGHTS", "")


def no_model(path):
    raise AssertionError(f"{path} is no model of the engine")


def smooth(t=2, h=24, w=40):
    generator = torch.Generator().manual_seed(4)
    coarse = torch.rand(t, 3, h // 4, w // 4, generator=generator)
    return torch.nn.functional.interpolate(coarse, size=(h, w), mode="bicubic").clamp(0, 1)


def test_lanczos_keeps_constants_and_is_its_formula_inside():
    weights = lanczos_weights(20, 80)
    assert torch.allclose(weights.sum(1), torch.ones(80))
    # Output 41 lies at 41.5 / 4 - 0.5 = 9.875 of the input.
    distances = np.arange(20) - 9.875
    expected = np.sinc(distances) * np.sinc(distances / 3) * (np.abs(distances) < 3)
    assert np.allclose(weights[41], expected / expected.sum(), atol=1e-6)
    flat = torch.full((1, 3, 5, 7), 0.4)
    assert torch.allclose(Lanczos().restore(flat, (30, 11)), torch.full((1, 3, 11, 30), 0.4))


def test_lanczos_equals_pillow():
    image = pytest.importorskip("PIL.Image")
    picture = (smooth(1)[0] * 255).round().to(torch.uint8)
    array = picture.permute(1, 2, 0).numpy()
    for size in ((160, 96), (20, 12)):
        expected = np.array(image.fromarray(array).resize(size, image.LANCZOS))
        found = Lanczos().restore(picture[None].float() / 255, size)[0].permute(1, 2, 0) * 255
        # Pillow rounds and clips to 8 bit between the two directions, and repeats no edge.
        difference = np.abs(found.numpy() - expected)
        assert difference.mean() < 0.4
        assert difference.max() < 4


def test_peers_get_the_same_low_clip_and_stand_in_the_same_table(tmp_path):
    truth = smooth(2, 48, 64)
    for index, frame in enumerate(truth):
        (tmp_path / "a").mkdir(exist_ok=True)
        (tmp_path / "a" / f"{index}.png").write_bytes(encode_picture(frame))
    seen = []

    class Recorder:
        name, identity = "mine", "mine 1"

        def restore(self, low, size):
            seen.append(low)
            return Lanczos().restore(low, size)

    class Model:
        name = "stub"

        def upscale(self, video, *, size, strength):
            seen.append(video[0].transpose(0, 1))
            flat = video[0].transpose(0, 1)
            big = torch.nn.functional.interpolate(flat, size=size[::-1], mode="bicubic")
            return big.clamp(0, 1).transpose(0, 1)[None]

    options = {"suite": MetricSuite(("psnr_db",)), "degradations": ["web"]}
    source = ClipSource(name="a", truth=tmp_path / "a")
    cache = ResultCache(tmp_path / "cache")
    (result,) = evaluate(Model(), [source], peers=[Recorder(), Lanczos()], cache=cache, **options)
    assert set(result.methods) == {"bicubic", "model", "mine", "lanczos"}
    assert result.methods["mine"] == result.methods["lanczos"]
    assert all(torch.equal(low, seen[0]) for low in seen)
    # The second run takes what is kept, and says the same.
    del seen[:]
    (again,) = evaluate(Model(), [source], peers=[Recorder(), Lanczos()], cache=cache, **options)
    assert again == result
    assert len(seen) == 2


def test_the_cache_knows_peers_clips_and_sizes_apart_and_mends_itself(tmp_path):
    calls = []

    class Counting(Lanczos):
        def restore(self, low, size):
            calls.append(size)
            return super().restore(low, size)

    cache, low = ResultCache(tmp_path), smooth()
    first = cache.restore(Counting(), low, (80, 48))
    assert torch.equal(cache.restore(Counting(), low, (80, 48)), first)
    assert len(calls) == 1
    cache.restore(Counting(), low, (40, 24))
    cache.restore(Counting(), low.flip(3), (80, 48))
    other = Counting()
    other.identity = "another"
    cache.restore(other, low, (80, 48))
    assert len(calls) == 4
    other.identity = ""
    cache.restore(other, low, (80, 48))
    cache.restore(other, low, (80, 48))
    assert len(calls) == 6
    del calls[4:]
    for file in tmp_path.iterdir():
        file.write_bytes(file.read_bytes()[:100])
    assert torch.equal(cache.restore(Counting(), low, (80, 48)), first)
    assert len(calls) == 5


def test_bad_peers_are_one_sentence(tmp_path, monkeypatch):
    with pytest.raises(EvaluationError, match=r"a peer must be lanczos or .*, got 'cubic'"):
        find_peers(["cubic"], no_model)
    with pytest.raises(EvaluationError, match=r"a name of its own, none of .*, got 'lanczos'"):
        find_peers(["lanczos", "lanczos"], no_model)
    file = tmp_path / "net.param"
    file.write_text("7767517\n")
    monkeypatch.setitem(__import__("sys").modules, "ncnn", None)
    with pytest.raises(MissingExtraError, match=r"the peer net needs the package ncnn.*evaluate"):
        find_peers([str(file)], no_model)


def write_ncnn_model(folder, weight):
    """A network that enlarges four times and weighs the channels by a 1x1 convolution."""
    (folder / "net.param").write_text(
        "7767517\n3 3\n"
        "Input input 0 1 data\n"
        "Interp up 1 1 data big 0=1 1=4.0 2=4.0\n"
        "Convolution mix 1 1 big output 0=3 1=1 5=0 6=9\n"
    )
    (folder / "net.bin").write_bytes(bytes(4) + weight.numpy().astype("<f4").tobytes())
    return folder / "net.param"


def test_ncnn_gets_rgb_frames_and_gives_them_back(tmp_path):
    try:
        peers_module.need("ncnn", extra="evaluate", purpose="this test")
    except MissingExtraError as error:
        pytest.skip(str(error))
    weight = torch.tensor([[0.0, 1.0, 0.0], [0.0, 0.0, 0.5], [1.0, 0.0, 0.0]])
    (peer,) = find_peers([f"mix={write_ncnn_model(tmp_path, weight)}"], no_model)
    low = smooth()
    found = peer.restore(low, (160, 96))
    expected = torch.einsum("oc,tchw->tohw", weight, low)
    expected = expected.repeat_interleave(4, 2).repeat_interleave(4, 3)
    assert torch.allclose(found, expected, atol=1e-3)
    # Half of its scale: resized to the wanted size.
    assert peer.restore(low, (80, 48)).shape == (2, 3, 48, 80)
    (tmp_path / "net.bin").unlink()
    with pytest.raises(EvaluationError, match=r"the peer mix needs .*net\.bin beside net\.param"):
        NcnnModel("mix", tmp_path / "net.param")


@pytest.mark.skipif(
    not (Path(REAL) / "realesr-animevideov3-x4.param").is_file() or not REAL,
    reason="OASIS_METRIC_WEIGHTS names no folder with realesr-animevideov3-x4.param and .bin",
)
def test_real_weights_of_a_peer_sharpen(tmp_path):
    try:
        (peer,) = find_peers([f"v3={Path(REAL) / 'realesr-animevideov3-x4.param'}"], no_model)
    except MissingExtraError as error:
        pytest.skip(str(error))
    # A hard edge, area-averaged: the network must come nearer to it than the Lanczos resize does.
    truth = torch.zeros(1, 3, 128, 128)
    truth[..., 62:] = 0.8
    truth[:, :, 30:50, 20:50] = 0.5
    low = torch.nn.functional.avg_pool2d(truth, 4)
    theirs, plain = (p.restore(low, (128, 128)) for p in (peer, Lanczos()))
    assert (theirs - truth).square().mean() < (plain - truth).square().mean()


def test_a_tripod_is_one_frame_under_fresh_noise(tmp_path):
    truth = smooth(3, 48, 64)
    folder = tmp_path / "a"
    folder.mkdir()
    for index, frame in enumerate(truth):
        (folder / f"{index}.png").write_bytes(encode_picture(frame))
    suite = MetricSuite(("still_deviation", "psnr_db"))
    source = ClipSource(name="a", truth=folder)
    recorded = []

    class Model:
        name = "stub"

        def upscale(self, video, *, size, strength):
            recorded.append(video)
            flat = video[0].transpose(0, 1)
            big = torch.nn.functional.interpolate(flat, size=size[::-1], mode="bicubic")
            return big.clamp(0, 1).transpose(0, 1)[None]

    options = {"suite": suite, "degradations": ["light"]}
    (result,) = evaluate(Model(), [source], is_tripod=True, **options)
    low = recorded[0][0].transpose(0, 1)
    assert not torch.equal(low[0], low[1])
    assert result.model["still_deviation"] > 0
    (moving,) = evaluate(Model(), [source], **options)
    assert "still_deviation" not in moving.model
    low_only = ClipSource(name="b", low=folder)
    with pytest.raises(EvaluationError, match="a scene on a tripod can be made of sharp clips"):
        evaluate(Model(), [low_only], is_tripod=True, **options)


def test_the_command_takes_peers_and_writes_sheets(tmp_path):
    pytest.importorskip("PIL")
    from oasis_core.cli import main

    folder = tmp_path / "clips" / "a"
    folder.mkdir(parents=True)
    for index, frame in enumerate(smooth(2, 64, 64)):
        (folder / f"{index}.png").write_bytes(encode_picture(frame))
    common = ["evaluate", "--peers", "lanczos", "--metrics", "psnr_db", "--frames", "2"]
    common += ["--cache", str(tmp_path / "cache"), "--sheets", str(tmp_path / "sheets")]
    code = main([*common, str(folder.parent), "--out", str(tmp_path / "out")])
    assert code == 0
    values = json.loads((tmp_path / "out" / "results.json").read_text())
    assert list(values["means"]) == ["light", "web", "consistent"]
    assert set(values["means"]["web"]) == {"bicubic", "model", "lanczos"}
    table = (tmp_path / "out" / "results.md").read_text().splitlines()
    assert table[0] == "| `light`, 1 clip | PSNR |"
    lanczos = values["means"]["light"]["lanczos"]["psnr_db"]
    assert f"| lanczos | {lanczos:.2f} |" in table
    assert sorted(p.name for p in (tmp_path / "sheets").iterdir()) == [
        "consistent-a.png",
        "light-a.png",
        "web-a.png",
    ]
    # Low-quality clips without an original, and their middle only.
    low = ["--low", str(folder.parent), "--middle", "128", "--scale", "4"]
    assert main([*common, *low, "--out", str(tmp_path / "low")]) == 0
    values = json.loads((tmp_path / "low" / "results.json").read_text())
    assert values["clips"][0]["size"] == [128, 128]
    assert (tmp_path / "sheets" / "given-a.png").is_file()
    assert main([*common, "--peers", "nothing.pth", str(folder.parent)]) != 0


def test_the_last_lines_are_sentences(tmp_path, capsys):
    from oasis_core.cli import main

    folder = tmp_path / "a"
    folder.mkdir()
    for index, frame in enumerate(smooth(2, 64, 64)):
        (folder / f"{index}.png").write_bytes(encode_picture(frame))
    call = ["evaluate", str(folder), "--degradation", "light", "--dtype", "float32"]
    assert main([*call, "--metrics", "psnr_db,temporal_difference"]) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    number = r"[-+]?\d+\.\d\d"
    assert re.fullmatch(
        rf"light: the model, 1 clip: {number} dB over the bicubic resize, which has {number} dB; "
        rf"temporal error {number}",
        last,
    ), last
    assert "_db" not in last


def test_the_model_is_measured_at_points_of_its_slider(tmp_path):
    from oasis_core.cli import main

    folder = tmp_path / "clips" / "a"
    folder.mkdir(parents=True)
    (folder / "0.png").write_bytes(encode_picture(smooth(1, 64, 64)[0]))
    call = ["evaluate", str(folder), "--degradation", "web", "--metrics", "psnr_db"]
    call += ["--dtype", "float32", "--detail", "0", "--out", str(tmp_path / "out")]
    assert main([*call, "--details", "0,1"]) == 0
    means = json.loads((tmp_path / "out" / "results.json").read_text())["means"]["web"]
    assert set(means) == {"bicubic", "model", "detail 0", "detail 1"}
    assert means["detail 0"] == means["model"] != means["detail 1"]
    assert main([*call, "--details", "half"]) != 0
