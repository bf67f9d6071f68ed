"""Everything over HTTP on a real ComfyUI: what users queue, cancel and get wrong.

One long file: clips and prompts are shared, and test modules cannot import each other here.
"""

import dataclasses
import itertools
import json
import time
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

pytestmark = pytest.mark.comfy

ROOT = Path(__file__).resolve().parents[2]
API = ROOT / "workflows" / "api"
WIDTH, HEIGHT, NUM_FRAMES, RATE = 64, 36, 10, Fraction(30000, 1001)
MODEL = {"model_name": "oasis-tiny", "routing": "own"}
LOAD = {"class_type": "OASISLoadModel", "inputs": {**MODEL, "dtype": "float32"}}
LOOK = {
    "scale": 2.0,
    "width": 0,
    "height": 0,
    "strength": 1.0,
    "shots": True,
    "tile_px": 0,
    "segment_frames": 0,
    "color_anchor": True,
}
ENCODING = {"codec": "h264", "crf": 10.0, "preview_s": 0.0}


def workflow(name):
    return json.loads((API / f"{name}.json").read_text(encoding="utf-8"))


def write_clip(path, num_frames=NUM_FRAMES):
    """A small clip of moving waves with sound, at an uneven frame rate."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    with av.open(str(path), "w") as out:
        video = out.add_stream("libx264", rate=RATE, options={"crf": "10"})
        video.width, video.height, video.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        sound = out.add_stream("aac", rate=48000, layout="mono")
        for index in range(num_frames):
            gray = 128 + 60 * np.sin((x + 3 * index) * 0.2) + 40 * np.sin(y * 0.3)
            picture = np.stack((gray, gray * 0.8, gray * 0.6), axis=-1).astype(np.uint8)
            out.mux(video.encode(av.VideoFrame.from_ndarray(picture, "rgb24")))
        out.mux(video.encode(None))
        tone = np.sin(np.arange(int(48000 * num_frames / RATE)) * 0.06)[None].astype(np.float32)
        for start in range(0, tone.shape[1], 1024):
            block = av.AudioFrame.from_ndarray(tone[:, start : start + 1024], "fltp", "mono")
            block.sample_rate, block.pts = 48000, start
            out.mux(sound.encode(block))
        out.mux(sound.encode(None))


def frames_of(path):
    with av.open(str(path)) as video:
        return [frame.to_ndarray(format="rgb24") for frame in video.decode(video=0)]


def sound_of(path):
    with av.open(str(path)) as video:
        return [bytes(packet) for packet in video.demux(audio=0) if packet.size]


def psnr_db(first, second):
    error = np.mean((first.astype(float) - second.astype(float)) ** 2)
    return 10 * np.log10(255**2 / error)


def resized(frame, width, height):
    picture = av.VideoFrame.from_ndarray(frame, "rgb24")
    return picture.reformat(width=width, height=height, interpolation="BICUBIC").to_ndarray()


@pytest.fixture(scope="module")
def clip(server):
    write_clip(server.base / "input" / "small.mp4")
    return server.base / "input" / "small.mp4"


def video_prompt(file="small.mp4", **changes):
    """Load a video, upscale it, save it and show the report."""
    inputs = {"model": ["1", 0], "video": ["2", 0], **LOOK, **ENCODING}
    save = {"video": ["3", 0], "filename_prefix": "small", "format": "auto", "codec": "auto"}
    return {
        "1": LOAD,
        "2": {"class_type": "LoadVideo", "inputs": {"file": file}},
        "3": {"class_type": "OASISUpscaleVideo", "inputs": {**inputs, **changes}},
        "4": {"class_type": "SaveVideo", "inputs": save},
        "5": {"class_type": "PreviewAny", "inputs": {"source": ["3", 1]}},
    }


def image_prompt(source, **changes):
    inputs = {"model": ["1", 0], "images": ["2", 0], "frames_are": "one clip", **LOOK}
    return {
        "1": LOAD,
        "2": source,
        "3": {"class_type": "OASISUpscaleImages", "inputs": {**inputs, **changes}},
        "4": {"class_type": "SaveImage", "inputs": {"images": ["3", 0], "filename_prefix": "i"}},
    }


def empty_images(width=32, height=24, count=1):
    values = {"width": width, "height": height, "batch_size": count, "color": 0x336699}
    return {"class_type": "EmptyImage", "inputs": values}


def assert_goes_on(server, images=None):
    """The queue still works, on something that no cache holds."""
    run = server.run(image_prompt(images or empty_images(), strength=next(STRENGTHS)))
    assert run.is_success
    assert "3" not in run.cached


STRENGTHS = (step / 1000 for step in itertools.count(500))


# Workflows


# Per workflow: the node that saves, and frames, height and width of what it saves.
SAVED = {
    "2_upscale_image": ("6", 1, 720, 1280),
    "3_restore": ("4", 72, 180, 320),
    "5_tiles": ("10", 8, 360, 640),
    "6_deplastic": ("8", 24, 180, 320),
    "7_calibrate_routing": ("10", 4, 720, 1280),
}


@pytest.mark.parametrize("name", SAVED)
def test_workflow_runs_as_it_is(server, name):
    node, count, height, width = SAVED[name]
    run = server.run(workflow(name))
    assert run.is_success, run.history
    frames = [frame for path in run.files(node) for frame in frames_of(path)]
    assert len(frames) == count
    assert {frame.shape for frame in frames} == {(height, width, 3)}


def test_compare_workflow_measures_and_shows(server):
    run = server.run(workflow("4_degrade_upscale_compare"))
    assert run.is_success, run.history
    metrics = json.loads(run.text("8"))
    assert metrics["reference"] == "truth"
    assert metrics["after"]["psnr_db"] > metrics["before"]["psnr_db"] > 20
    (shown,) = run.history["outputs"]["7"]["oasis_compare"]
    assert shown["metrics"] == metrics
    frames = frames_of(server.base / "temp" / shown["filename"])
    assert len(frames) == shown["frames"] == 8
    assert frames[0].shape == (shown["height"], 2 * shown["width"], 3) == (180, 640, 3)
    assert server.run(workflow("4_degrade_upscale_compare")).cached >= {"5", "6", "7"}


@pytest.mark.slow
def test_video_workflow_runs_as_it_is(server):
    run = server.run(workflow("1_upscale_video"))
    assert run.is_success, run.history
    source = ROOT / "workflows" / "example_inputs" / "hand_held.mp4"
    (path,) = run.files("4")
    before, after = frames_of(source), frames_of(path)
    assert len(after) == len(before) == 72
    assert sound_of(path) == sound_of(source)
    for index in (0, 35, 71):
        assert psnr_db(after[index], resized(before[index], 1280, 720)) > 30
    again = server.run(workflow("1_upscale_video"))
    assert "3" in again.cached


def test_workflows_are_offered_as_templates(server):
    names = {path.stem for path in (ROOT / "workflows").glob("*.json")}
    assert set(server.get("/workflow_templates")["oasis"]) == names


def test_help_is_served(server):
    import urllib.request

    with urllib.request.urlopen(f"{server.url}/extensions/oasis/docs/OASISUpscaleVideo.md") as page:
        assert page.read().startswith(b"# OASIS Upscale Video")


# Video


def test_video_keeps_frames_times_and_sound(server, clip):
    run = server.run(video_prompt())
    assert run.is_success, run.history
    (path,) = run.files("4")
    before, after = frames_of(clip), frames_of(path)
    assert len(after) == NUM_FRAMES
    assert after[0].shape == (2 * HEIGHT, 2 * WIDTH, 3)
    assert sound_of(path) == sound_of(clip)
    with av.open(str(path)) as video:
        assert video.streams.video[0].average_rate == RATE
    for small, large in zip(before, after, strict=True):
        assert psnr_db(large, resized(small, 2 * WIDTH, 2 * HEIGHT)) > 30
    report = json.loads(run.text("5"))
    assert report["frames"] == NUM_FRAMES
    assert report["model"] == "oasis-tiny"


def test_second_queue_does_not_run_again(server, clip):
    server.run(video_prompt())
    assert {"1", "2", "3"} <= server.run(video_prompt()).cached


def test_result_that_the_cache_lost_is_found_again(server, clip):
    first = server.run(video_prompt(crf=11.0))
    server.post("/free", {"unload_models": True, "free_memory": True})
    time.sleep(2)  # the server frees after its queue is empty, at most once a second
    second = server.run(video_prompt(crf=11.0))
    assert "3" not in second.cached
    assert json.loads(second.text("5")) == json.loads(first.text("5"))


def test_exact_size_and_one_side(server, clip):
    for changes, size in (
        ({"width": 100, "height": 50}, (50, 100)),
        ({"width": 96}, (54, 96)),
        ({"height": 72}, (72, 128)),
    ):
        run = server.run(video_prompt(**changes))
        assert frames_of(run.files("4")[0])[0].shape[:2] == size


def test_preview_takes_the_first_seconds_with_their_sound(server, clip):
    whole = server.run(video_prompt())
    run = server.run(video_prompt(preview_s=0.2))
    assert run.is_success, run.history
    frames, expected = frames_of(run.files("4")[0]), frames_of(whole.files("4")[0])
    assert len(frames) == 6
    assert psnr_db(frames[0], expected[0]) > 35
    assert 0 < len(sound_of(run.files("4")[0])) < len(sound_of(clip))


def test_other_codecs(server, clip):
    for codec, name in (("h265", "hevc"), ("ffv1", "ffv1")):
        run = server.run(video_prompt(codec=codec))
        assert run.is_success, run.history
        with av.open(str(run.files("4")[0])) as video:
            assert video.streams.video[0].codec_context.name == name


def test_trimmed_video_gives_the_trimmed_frames(server, clip):
    if "Video Slice" not in server.get("/object_info"):
        pytest.skip("this ComfyUI cannot trim")
    values = {"video": ["2", 0], "start_time": 0.11, "duration": 0.13, "strict_duration": False}
    prompt = video_prompt(video=["6", 0])
    prompt["6"] = {"class_type": "Video Slice", "inputs": values}
    run = server.run(prompt)
    assert run.is_success, run.history
    after, before = frames_of(run.files("4")[0]), frames_of(clip)
    assert len(after) == 4
    assert sound_of(run.files("4")[0])
    nearest = [
        max(range(NUM_FRAMES), key=lambda i: psnr_db(frame, resized(before[i], 128, 72)))
        for frame in after
    ]
    assert nearest in ([3, 4, 5, 6], [4, 5, 6, 7])


def test_created_video_keeps_frames_and_sound(server, clip):
    prompt = video_prompt(video=["7", 0])
    prompt["6"] = {"class_type": "GetVideoComponents", "inputs": {"video": ["2", 0]}}
    values = {"images": ["6", 0], "audio": ["6", 1], "fps": 24.0}
    prompt["7"] = {"class_type": "CreateVideo", "inputs": values}
    run = server.run(prompt)
    assert run.is_success, run.history
    (path,) = run.files("4")
    after, before = frames_of(path), frames_of(clip)
    assert len(after) == NUM_FRAMES
    assert psnr_db(after[5], resized(before[5], 128, 72)) > 30
    assert sound_of(path)
    left = [p for p in (server.base / "temp").iterdir() if p.is_dir()]
    assert not left


def test_cancel_stops_soon_and_the_run_goes_on_later(server):
    write_clip(server.base / "input" / "long.mp4", 60)
    prompt = video_prompt("long.mp4", scale=4.0, segment_frames=12)
    running = server.queue(prompt)
    records = _wait_for_records(server)
    start = time.monotonic()
    server.post("/interrupt", {})
    run = server.wait(running)
    assert time.monotonic() - start < 15  # far less than a segment takes, on a busy machine too
    (message,) = run.messages("execution_interrupted")
    assert message["node_type"] == "OASISUpscaleVideo"
    num_done = len(records.read_text().splitlines())
    assert_goes_on(server)
    report = json.loads(server.run(prompt).text("5"))
    assert report["num_resumed_segments"] == num_done > 0
    assert report["num_segments"] == 5


def _wait_for_records(server):
    end = time.monotonic() + 300
    while time.monotonic() < end:
        if found := list((server.base / "temp").glob("*.oasis/segments.jsonl")):
            return found[0]
        time.sleep(0.05)
    raise TimeoutError


def resident_mib(server, name="VmRSS"):
    """Resident size of the server; under the name VmHWM the largest so far."""
    lines = Path(f"/proc/{server.pid}/status").read_text().splitlines()
    (size,) = (int(line.split()[1]) for line in lines if line.startswith(name))
    return size / 1024


needs_proc = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads /proc")


def trend(values):
    """Median slope between all pairs: one jump, as allocators make, does not sway it."""
    pairs = itertools.combinations(enumerate(values), 2)
    return float(np.median([(y - x) / (j - i) for (i, x), (j, y) in pairs]))


@needs_proc
def test_runs_leave_nothing_behind(server):
    sizes = []
    for _ in range(30):
        assert_goes_on(server, empty_images(256, 256, 4))
        sizes.append(resident_mib(server))
    # Each result is 12 MiB. Single runs were seen 15 to 44 MiB above their neighbours, so no one
    # difference tells a leak; a leak of a result would show as a slope of 12.
    assert trend(sizes[6:]) < 3, sizes


@pytest.mark.slow
@needs_proc
def test_memory_does_not_depend_on_the_length(server):
    peaks = []
    for num_frames in (300, 3000):
        write_clip(server.base / "input" / f"{num_frames}.mp4", num_frames)
        run = server.run(video_prompt(f"{num_frames}.mp4", segment_frames=24))
        assert json.loads(run.text("5"))["frames"] == num_frames
        peaks.append(resident_mib(server, "VmHWM"))
    assert peaks[1] - peaks[0] < 50  # the long result is 83 MiB as bytes, 316 as images


# Images


def test_stills_do_not_depend_on_each_other(server, clip):
    source = {"class_type": "GetVideoComponents", "inputs": {"video": ["9", 0]}}
    prompt = image_prompt(source, frames_are="independent stills")
    prompt["9"] = {"class_type": "LoadVideo", "inputs": {"file": "small.mp4"}}
    batch = server.run(prompt)
    prompt["3"]["inputs"]["images"] = ["8", 0]
    values = {"image": ["2", 0], "batch_index": 4, "length": 1}
    prompt["8"] = {"class_type": "ImageFromBatch", "inputs": values}
    alone = server.run(prompt)
    assert len(batch.files("4")) == NUM_FRAMES
    assert (frames_of(batch.files("4")[4])[0] == frames_of(alone.files("4")[0])[0]).all()


def test_alpha_is_kept(server):
    prompt = image_prompt(empty_images())
    mask = {"value": 0.25, "width": 32, "height": 24}
    prompt["6"] = {"class_type": "SolidMask", "inputs": mask}
    join = {"image": ["2", 0], "alpha": ["6", 0]}
    prompt["7"] = {"class_type": "JoinImageWithAlpha", "inputs": join}
    prompt["3"]["inputs"]["images"] = ["7", 0]
    run = server.run(prompt)
    assert run.is_success, run.history
    with av.open(str(run.files("4")[0])) as image:
        frame = next(image.decode(video=0))
    assert frame.format.name == "rgba"
    alpha = frame.to_ndarray()[..., 3]
    assert alpha.shape == (48, 64)
    assert (alpha == alpha[0, 0]).all()
    assert alpha[0, 0] in range(189, 193)


def test_degrade_repeats_and_says_what_it_did(server, clip):
    source = {"class_type": "LoadVideo", "inputs": {"file": "small.mp4"}}
    prompt = {
        "1": source,
        "2": {"class_type": "GetVideoComponents", "inputs": {"video": ["1", 0]}},
        "4": {"class_type": "SaveImage", "inputs": {"images": ["3", 0], "filename_prefix": "d"}},
        "5": {"class_type": "PreviewAny", "inputs": {"source": ["3", 1]}},
    }
    results = {}
    for preset in ("light", "consistent", "inconsistent"):
        values = {"images": ["2", 0], "preset": preset, "scale": 2.0, "seed": 7}
        prompt["3"] = {"class_type": "OASISDegrade", "inputs": values}
        run = server.run(prompt)
        assert run.is_success, run.history
        frames = [frames_of(path)[0] for path in run.files("4")]
        assert len(frames) == NUM_FRAMES
        assert frames[0].shape == (HEIGHT // 2, WIDTH // 2, 3)
        assert "resize" in [s["operator"] for s in json.loads(run.text("5"))["steps"]]
        results[preset] = frames
    assert not np.array_equal(results["light"][0], results["consistent"][0])


# Tiles, comparison, routing


def tile_prompt(between=None, count=2):
    """Split, let another node work on each tile, stitch."""
    image = ["2", 1] if between is None else ["6", 0]
    prompt = {
        "2": {
            "class_type": "OASISSplitTiles",
            "inputs": {"images": ["9", 0], "tile_px": 64, "overlap_px": 32},
        },
        "3": {"class_type": "OASISStitchTiles", "inputs": {"tiles": ["2", 0], "images": image}},
        "4": {"class_type": "SaveImage", "inputs": {"images": ["3", 0], "filename_prefix": "t"}},
        "7": {"class_type": "LoadVideo", "inputs": {"file": "hand_held.mp4"}},
        "8": {"class_type": "GetVideoComponents", "inputs": {"video": ["7", 0]}},
        "9": {
            "class_type": "ImageFromBatch",
            "inputs": {"image": ["8", 0], "batch_index": 0, "length": count},
        },
        "10": {"class_type": "SaveImage", "inputs": {"images": ["9", 0], "filename_prefix": "s"}},
    }
    if between is not None:
        prompt["6"] = between
    return prompt


def test_tiles_that_nothing_touched_are_stitched_exactly(server):
    run = server.run(tile_prompt())
    assert run.is_success, run.history
    for before, after in zip(run.files("10"), run.files("4"), strict=True):
        assert (frames_of(before)[0] == frames_of(after)[0]).all()


def test_other_nodes_may_scale_tiles(server):
    values = {"image": ["2", 1], "upscale_method": "nearest-exact", "scale_by": 1.5}
    run = server.run(tile_prompt({"class_type": "ImageScaleBy", "inputs": values}, count=3))
    assert run.is_success, run.history
    before, after = (frames_of(run.files(node)[0])[0] for node in ("10", "4"))
    assert after.shape == (270, 480, 3)
    rows, columns = (((np.arange(n) + 0.5) / 1.5).astype(int) for n in after.shape[:2])
    assert (after == before[rows][:, columns]).all()


def test_tiles_of_other_sizes_are_refused_in_words(server):
    values = {"image": ["2", 1], "upscale_method": "nearest-exact", "scale_by": 1.03}
    run = server.run(tile_prompt({"class_type": "ImageScaleBy", "inputs": values}))
    assert "tile 0 must keep its size of 64x64" in run.error
    assert run.messages("execution_error")[0]["node_type"] == "OASISStitchTiles"
    values = {"image": ["2", 1], "batch_index": 0, "length": 1}
    run = server.run(tile_prompt({"class_type": "ImageFromBatch", "inputs": values}))
    assert "tile 0 must have 2 frames, got 1" in run.error
    assert_goes_on(server)


def compare_prompt(**changes):
    values = {"before": ["2", 0], "after": ["2", 0], "layout": "split", "max_frames": 4}
    return {
        "2": {"class_type": "LoadVideo", "inputs": {"file": "small.mp4"}},
        "3": {
            "class_type": "OASISCompare",
            "inputs": {**values, "fps": 24.0, "flicker": True, **changes},
        },
        "4": {
            "class_type": "SaveVideo",
            "inputs": {
                "video": ["3", 1],
                "filename_prefix": "c",
                "format": "auto",
                "codec": "auto",
            },
        },
        "5": {"class_type": "PreviewAny", "inputs": {"source": ["3", 2]}},
    }


def test_compare_reads_videos_at_their_own_rate(server, clip):
    run = server.run(compare_prompt())
    assert run.is_success, run.history
    metrics = json.loads(run.text("5"))
    assert metrics["after"]["psnr_db"] == 100
    assert metrics["frames"] == 4
    flicker = metrics["after"]["warping_error"]
    assert flicker == metrics["before"]["warping_error"]
    assert (flicker is None) == bool(metrics["notes"])  # without scikit-image it says so
    (path,) = run.files("4")
    assert len(frames_of(path)) == 4
    with av.open(str(path)) as video:
        assert video.streams.video[0].average_rate == RATE


def test_routing_is_applied_and_undone(server):
    prompt = image_prompt(empty_images(64, 48, 3))
    # Noise, because a routing changes nothing on a flat picture.
    prompt["6"] = {
        "class_type": "LoadVideo",
        "inputs": {"file": "hand_held.mp4"},
    }
    prompt["7"] = {"class_type": "GetVideoComponents", "inputs": {"video": ["6", 0]}}
    values = {"image": ["7", 0], "batch_index": 0, "length": 3}
    prompt["2"] = {"class_type": "ImageFromBatch", "inputs": values}
    values = {"scale": 2.0, "window_heads": 0, "intra_heads": 0, "frames": 3, "crop_px": 64}
    inputs = {"model": ["1", 0], "images": ["2", 0], **values, "sample_seed": 3}
    prompt["8"] = {"class_type": "OASISCalibrateRouting", "inputs": inputs}
    pictures = []
    for enabled in (False, True, False):
        inputs = {"model": ["1", 0], "routing": ["8", 0], "enabled": enabled}
        prompt["9"] = {"class_type": "OASISApplyRouting", "inputs": inputs}
        prompt["3"]["inputs"]["model"] = ["9", 0]
        prompt["3"]["inputs"]["strength"] = next(STRENGTHS)  # past the cache
        run = server.run(prompt)
        assert run.is_success, run.history
        pictures.append(frames_of(run.files("4")[0])[0])
    prompt["1"] = {**LOAD, "inputs": {**LOAD["inputs"], "routing": "all global"}}
    prompt["3"]["inputs"]["model"] = ["1", 0]
    run = server.run(prompt)
    everything = frames_of(run.files("4")[0])[0].astype(int)
    own, routed, again = (picture.astype(int) for picture in pictures)
    assert abs(own - again).max() <= 1  # strengths differ by thousandths
    assert abs(routed - everything).max() <= 1
    assert abs(own - everything).max() > 1


def test_latent_has_the_format_of_wan(server):
    torch = pytest.importorskip("torch")
    from safetensors import safe_open

    from oasis_core.checkpoint import save_checkpoint
    from oasis_core.config import OASIS_1_3B
    from oasis_core.model.denoiser import build_model
    from oasis_core.model.routing import HeadRouting

    small = {"width": 48, "num_layers": 2, "num_heads": 4, "ffn_width": 64, "vae_width": 4}
    config = dataclasses.replace(OASIS_1_3B, name="small-1.3b", **small)
    torch.manual_seed(0)
    file = server.base / "models" / "oasis" / "small.safetensors"
    save_checkpoint(file, build_model(config), HeadRouting.all_global(2, 4), {})
    prompt = image_prompt(empty_images(30, 70, 6))
    prompt["1"] = {**LOAD, "inputs": {**LOAD["inputs"], "model_name": "small.safetensors"}}
    values = {"model": ["1", 0], "images": ["2", 0], "scale": 2.0, "tile_px": 64}
    prompt["3"] = {"class_type": "OASISDenoiseToLatent", "inputs": values}
    save = {"samples": ["3", 0], "filename_prefix": "latent"}
    prompt["4"] = {"class_type": "SaveLatent", "inputs": save}
    prompt["5"] = {"class_type": "PreviewAny", "inputs": {"source": ["3", 1]}}
    run = server.run(prompt)
    assert run.is_success, run.history
    (path,) = (server.base / "output").glob("latent*.latent")
    with safe_open(path, framework="pt") as saved:
        latent = saved.get_tensor("latent_tensor")
    assert latent.shape == (1, 16, 3, 18, 8)
    assert latent.isfinite().all()
    assert run.text("5") == "6"
    prompt["1"] = LOAD
    assert "got oasis-tiny, whose decoder is 'conv'" in server.run(prompt).error
    assert_goes_on(server)


# Mistakes


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"width": 32768, "height": 32768}, "OASIS Upscale Video"),
        ({"width": 2, "height": 2}, "between 8 and"),
        ({"tile_px": 8}, "tile_px must be at least"),
    ],
)
def test_impossible_settings_are_refused_in_words(server, changes, said):
    run = server.run(image_prompt(empty_images(64, 64, 8), **changes))
    assert said in run.error
    assert run.messages("execution_error")[0]["node_type"] == "OASISUpscaleImages"
    assert_goes_on(server)


def test_picture_of_one_pixel_is_refused_in_words(server):
    assert "at least 8x8" in server.run(image_prompt(empty_images(1, 1))).error
    assert_goes_on(server)


def test_file_that_is_no_video_is_refused_in_words(server, clip):
    (server.base / "input" / "broken.mp4").write_bytes(b"not a video" * 100)
    run = server.run(video_prompt("broken.mp4"))
    assert "broken.mp4" in run.error
    assert run.messages("execution_error")[0]["node_type"] == "OASISUpscaleVideo"
    assert_goes_on(server)


@pytest.mark.parametrize("name", ["nowhere.safetensors", "../../input/small.mp4", "/etc/hostname"])
def test_model_outside_the_list_is_refused(server, name):
    prompt = image_prompt(empty_images())
    prompt["1"] = {**LOAD, "inputs": {**MODEL, "model_name": name, "dtype": "auto"}}
    answer = server.post("/prompt", {"prompt": prompt})
    if "prompt_id" in answer:  # ComfyUI before 0.8 does not check choices
        assert "model must be one of" in server.wait(answer["prompt_id"]).error
    else:
        assert "value_not_in_list" in json.dumps(answer)
    assert_goes_on(server)


@pytest.mark.parametrize(
    ("node", "name"),
    [("1", "dtype"), ("1", "routing"), ("3", "frames_are"), ("5", "preset"), ("3", "codec")],
)
def test_unknown_choice_is_refused(server, clip, node, name):
    prompt = video_prompt() if name == "codec" else image_prompt(empty_images())
    if name == "preset":
        values = {"images": ["3", 0], "preset": "light", "scale": 2.0, "seed": 7}
        prompt["5"] = {"class_type": "OASISDegrade", "inputs": values}
        prompt["4"]["inputs"]["images"] = ["5", 0]
    prompt[node] = {**prompt[node], "inputs": {**prompt[node]["inputs"], name: "unknown"}}
    answer = server.post("/prompt", {"prompt": prompt})
    if "prompt_id" in answer:
        assert f"{name} must be" in server.wait(answer["prompt_id"]).error
    else:
        assert "value_not_in_list" in json.dumps(answer)
    assert_goes_on(server)


def test_foreign_model_file_is_refused_in_words(server):
    (server.base / "models" / "oasis" / "foreign.safetensors").write_bytes(b"\0" * 64)
    prompt = image_prompt(empty_images())
    prompt["1"] = {
        **LOAD,
        "inputs": {**MODEL, "model_name": "foreign.safetensors", "dtype": "auto"},
    }
    assert "foreign.safetensors cannot be read" in server.run(prompt).error
    assert_goes_on(server)


def test_model_is_used_again_after_unloading(server):
    assert_goes_on(server)
    server.post("/free", {"unload_models": True, "free_memory": False})
    time.sleep(2)
    assert_goes_on(server)
    assert server.log.read_text().count("Requested to load OasisModel") >= 2
