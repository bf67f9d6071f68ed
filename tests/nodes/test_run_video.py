"""Videos through the streaming node: frames, times, sound, edits, cancelling."""

import json
import time

import av
import numpy as np
import pytest

from tests.nodes.comfy_server import RUN_S, needs_proc
from tests.nodes.media import (
    HEIGHT,
    NUM_FRAMES,
    RATE,
    WIDTH,
    frames_of,
    packets_of,
    psnr_db,
    resized,
    sound_of,
    write_clip,
)
from tests.nodes.prompts import STRENGTHS, assert_goes_on, video_prompt, workflow

pytestmark = pytest.mark.comfy


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
    # Save Video copied what the node had written: nothing was encoded again.
    written = map(packets_of, (server.base / "temp").glob("oasis_*.mp4"))
    assert packets_of(path) in list(written)
    report = json.loads(run.text("5"))
    assert report["frames"] == NUM_FRAMES
    assert report["model"] == "oasis-tiny"


def test_second_queue_does_not_run_again(server, clip):
    server.run(video_prompt())
    assert {"1", "2", "3"} <= server.run(video_prompt()).cached


def test_result_that_the_cache_lost_is_found_again(server, clip):
    first = server.run(video_prompt(crf=11.0))
    second = run_past_cache(server, video_prompt(crf=11.0))
    assert json.loads(second.text("5")) == json.loads(first.text("5"))


def run_past_cache(server, prompt):
    """Run once ComfyUI has dropped its results, which it does between two runs when it likes."""
    end = time.monotonic() + RUN_S
    while "3" in (run := server.run(prompt)).cached:
        assert time.monotonic() < end
        server.post("/free", {"unload_models": True, "free_memory": True})
        time.sleep(0.5)
    return run


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


def slice_prompt(start_s, duration_s, **changes):
    prompt = video_prompt(video=["6", 0], **changes)
    values = {"start_time": start_s, "duration": duration_s, "strict_duration": False}
    prompt["6"] = {"class_type": "Video Slice", "inputs": {"video": ["2", 0], **values}}
    return prompt


@pytest.mark.parametrize(
    ("start_s", "duration_s", "preview_s", "expected"),
    [
        (0.11, 0.13, 0.0, [4, 5, 6, 7]),
        (0.11, 0.13, 0.07, [4, 5]),
        (0.2, 0.0, 0.0, [6, 7, 8, 9]),
        (-0.134, 0.0, 0.0, [6, 7, 8, 9]),
    ],
)
def test_trimmed_video_gives_the_trimmed_frames(
    server, clip, start_s, duration_s, preview_s, expected
):
    if "Video Slice" not in server.get("/object_info"):
        pytest.skip("this ComfyUI cannot trim")
    run = server.run(slice_prompt(start_s, duration_s, preview_s=preview_s))
    assert run.is_success, run.history
    after, before = frames_of(run.files("4")[0]), frames_of(clip)
    assert sound_of(run.files("4")[0])
    nearest = [
        max(range(NUM_FRAMES), key=lambda i: psnr_db(frame, resized(before[i], 128, 72)))
        for frame in after
    ]
    assert nearest == expected


def test_trimmed_video_is_not_copied_first(server, clip):
    if "Video Slice" not in server.get("/object_info"):
        pytest.skip("this ComfyUI cannot trim")
    first = server.run(slice_prompt(0.0, 0.2, crf=12.0))
    folders = [path for path in (server.base / "temp").iterdir() if path.is_dir()]
    assert first.is_success
    assert not folders
    again = run_past_cache(server, slice_prompt(0.0, 0.2, crf=12.0))
    assert json.loads(again.text("5")) == json.loads(first.text("5"))


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


@pytest.mark.parametrize(("kind", "width"), [("cropped", WIDTH // 2), ("in memory", WIDTH)])
def test_video_that_is_no_plain_file_is_upscaled_as_shown(server, clip, kind, width):
    if kind == "cropped" and "Video Slice" not in server.get("/object_info"):
        pytest.skip("this ComfyUI cannot edit videos")
    prompt = video_prompt(video=["6", 0])
    prompt["6"] = {"class_type": "OddVideo", "inputs": {"file": "small.mp4", "kind": kind}}
    run = server.run(prompt)
    assert run.is_success, run.history
    (path,) = run.files("4")
    after, before = frames_of(path), frames_of(clip)
    assert len(after) == NUM_FRAMES
    assert after[0].shape == (2 * HEIGHT, 2 * width, 3)
    shown = np.ascontiguousarray(before[5][:, :width])
    assert psnr_db(after[5], resized(shown, 2 * width, 2 * HEIGHT)) > 30
    assert sound_of(path)
    assert not [p for p in (server.base / "temp").iterdir() if p.is_dir()]


def test_cancelled_run_goes_on_later(server):
    write_clip(server.base / "input" / "long.mp4", 60)
    prompt = video_prompt("long.mp4", scale=4.0, segment_frames=12)
    running = server.queue(prompt)
    records = wait_for(lambda: next((server.base / "temp").glob("*.oasis/segments.jsonl"), None))
    server.post("/interrupt", {})
    run = server.wait(running)
    (message,) = run.messages("execution_interrupted")
    assert message["node_type"] == "OASISUpscaleVideo"
    num_done = len(records.read_text().splitlines())
    assert_goes_on(server)
    report = json.loads(server.run(prompt).text("5"))
    assert report["num_resumed_segments"] == num_done > 0
    assert report["num_segments"] == 5


@needs_proc
@pytest.mark.parametrize("share", [0.2, 0.6])
def test_cancelling_takes_less_than_a_second_at_default_tiles(server, share):
    prompt = workflow("1 Upscale a video")
    prompt["1"]["inputs"]["dtype"] = "float32"
    prompt["3"]["inputs"]["strength"] = next(STRENGTHS)
    begun_s = server.cpu_s()
    running = server.queue(prompt)
    wait_for(lambda: server.cpu_s() - begun_s > 10 * share or None)
    asked_s = server.cpu_s()
    server.post("/interrupt", {})
    run = server.wait(running)
    # Of the processor, so that a busy machine does not count; alone it is time on the wall.
    taken_s = server.cpu_s() - asked_s
    print(f"cancelled in {taken_s:.2f} s")  # noqa: T201 - for docs/comfyui.md, with pytest -s
    assert taken_s < 1
    assert run.messages("execution_interrupted")


def wait_for(condition):
    end = time.monotonic() + RUN_S
    while time.monotonic() < end:
        if (found := condition()) is not None:
            return found
        time.sleep(0.05)
    raise TimeoutError
