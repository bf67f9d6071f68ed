"""VIDEO of every kind and rate into the nodes: exact times, sound, depth, and a bounded disk."""

import json
from fractions import Fraction

import av
import pytest

from tests.nodes.media import HEIGHT, NUM_FRAMES, WIDTH, frames_of, sound_of, write_clip
from tests.nodes.prompts import STRENGTHS, compare_prompt, video_prompt
from tests.nodes.test_run_video import run_past_cache, wait_for

pytestmark = pytest.mark.comfy

RATES = {
    23.976: Fraction(24000, 1001),
    29.97: Fraction(30000, 1001),
    59.94: Fraction(60000, 1001),
    24.0: Fraction(24),
    16.666: Fraction(8333, 500),
    12.5: Fraction(25, 2),
    120.0: Fraction(120),
}


def created(rate, depth=None, **changes):
    """Frames and sound of a file as a new VIDEO."""
    prompt = video_prompt(changes.pop("file", "small.mp4"), video=["7", 0], **changes)
    prompt["6"] = {"class_type": "GetVideoComponents", "inputs": {"video": ["2", 0]}}
    values = {"images": ["6", 0], "audio": ["6", 1], "fps": rate}
    prompt["7"] = {"class_type": "CreateVideo", "inputs": values}
    if depth is not None:
        values["bit_depth"] = depth
    return prompt


def times_of(path):
    with av.open(str(path)) as video:
        stream = video.streams.video[0]
        return sorted(p.pts * stream.time_base for p in video.demux(stream) if p.size)


@pytest.mark.parametrize(("rate", "expected"), RATES.items())
def test_created_video_of_any_rate_keeps_exact_times_and_starts_with_its_sound(
    server, clip, rate, expected
):
    run = server.run(created(rate, file_name=f"rates/{expected.numerator}"))
    assert run.is_success, run.history
    path = json.loads(run.text("5"))["destination"]
    assert times_of(path) == [index / expected for index in range(NUM_FRAMES)]
    with av.open(path) as video:
        assert video.streams.video[0].average_rate == expected
        assert video.streams.audio[0].start_time == 0
    assert sound_of(path)
    # Save Video copies the stream: the same times.
    assert times_of(run.files("4")[0]) == times_of(path)


def test_the_rate_that_get_video_components_reads_is_understood(server, clip):
    prompt = created(24.0)
    prompt["7"]["inputs"]["fps"] = ["6", 2]
    run = server.run(prompt)
    assert run.is_success, run.history
    with av.open(str(run.files("4")[0])) as video:
        assert video.streams.video[0].average_rate == Fraction(30000, 1001)


@pytest.mark.parametrize("rate", RATES)
def test_compare_takes_any_rate(server, clip, rate):
    prompt = compare_prompt(before=["7", 0], after=["7", 0], flicker=False)
    prompt |= {key: created(rate)[key] for key in ("6", "7")}
    run = server.run(prompt)
    assert run.is_success, run.history
    with av.open(str(run.files("4")[0])) as video:
        assert video.streams.video[0].average_rate == RATES[rate]
    still = server.run(compare_prompt(fps=rate, flicker=False))
    assert still.is_success, still.history


def test_created_video_is_not_cut_to_eight_bits(server, clip):
    if "bit_depth" not in json.dumps(server.get("/object_info/CreateVideo")):
        pytest.skip("this ComfyUI has no depth of a video")
    for depth in (8, 10):
        run = server.run(created(24.0, depth=depth))
        assert run.is_success, run.history
        with av.open(str(run.files("4")[0])) as video:
            assert video.streams.video[0].format.components[0].bits == depth


@pytest.mark.parametrize(("kind", "transfer"), [("HLG frames", 18), ("PQ frames", 16)])
def test_frames_that_are_hdr_stay_so(server, clip, kind, transfer):
    prompt = video_prompt(codec="h265", file_name="hdr/h", video=["7", 0])
    prompt["7"] = {"class_type": "OddVideo", "inputs": {"file": "small.mp4", "kind": kind}}
    del prompt["2"], prompt["4"]
    run = server.run(prompt)
    assert run.is_success, run.history
    with av.open(json.loads(run.text("5"))["destination"]) as video:
        context = video.streams.video[0].codec_context
        assert context.format.components[0].bits == 10
        tags = context.color_primaries, context.color_trc, context.colorspace
    assert [int(tag) for tag in tags] == [9, transfer, 9]


def test_cancelled_run_on_created_video_goes_on_later(server):
    write_clip(server.base / "input" / "long.mp4", 60)
    prompt = created(23.976, file="long.mp4", scale=4.0, segment_frames=12)
    running = server.queue(prompt)
    temp = server.base / "temp"
    old = set(temp.glob("*.oasis"))
    records = wait_for(
        lambda: next((p for p in temp.glob("*.oasis/segments.jsonl") if p.parent not in old), None)
    )
    server.post("/interrupt", {})
    assert server.wait(running).messages("execution_interrupted")
    num_done = len(records.read_text().splitlines())
    report = json.loads(server.run(prompt).text("5"))
    assert report["num_resumed_segments"] == num_done > 0


def test_lossless_file_survives_under_its_name(server, clip):
    run = server.run(video_prompt(codec="ffv1", file_name="kept/lossless"))
    assert run.is_success, run.history
    path = server.base / "output" / "kept" / "lossless_00001_.mkv"
    assert json.loads(run.text("5"))["destination"] == str(path)
    with av.open(str(path)) as video:
        assert video.format.name == "matroska,webm"
        assert video.streams.video[0].codec_context.name == "ffv1"
    assert len(frames_of(path)) == NUM_FRAMES
    # Asked again it is still there, and not made twice.
    again = run_past_cache(server, video_prompt(codec="ffv1", file_name="kept/lossless"))
    assert json.loads(again.text("5"))["destination"] == str(path)
    assert len(list(path.parent.iterdir())) == 1
    # Another name is another file with the same content.
    other = server.run(video_prompt(codec="ffv1", file_name="kept/other"))
    assert json.loads(other.text("5"))["destination"].endswith("other_00001_.mkv")
    assert path.is_file()


@pytest.mark.parametrize(("codec", "suffix"), [("prores", ".mov"), ("av1", ".mp4")])
def test_further_codecs_have_a_file(server, clip, codec, suffix):
    prompt = video_prompt(codec=codec, crf=-1.0, quality="good", file_name="further/c")
    del prompt["4"]  # Save Video cannot put ProRes into its MP4
    run = server.run(prompt)
    assert run.is_success, run.history
    path = json.loads(run.text("5"))["destination"]
    assert path.endswith(suffix)
    assert len(frames_of(path)) == NUM_FRAMES


@pytest.mark.parametrize(("target", "size"), [("720p", (1280, 720)), ("by scale", (128, 72))])
def test_size_by_name(server, clip, target, size):
    run = server.run(video_prompt(target=target, strength=0.0))
    assert json.loads(run.text("5"))["width"] == size[0]
    assert json.loads(run.text("5"))["height"] == size[1]
    assert size[0] * HEIGHT == size[1] * WIDTH


def test_ten_settings_leave_a_few_results_and_each_can_be_had_again(server, clip):
    strengths = [next(STRENGTHS) for _ in range(10)]
    for strength in strengths:
        assert server.run(video_prompt(strength=strength)).is_success
    left = list((server.base / "temp").glob("oasis_*.mp4"))
    assert len(left) <= 7, left
    first = server.run(video_prompt(strength=strengths[0]))
    assert first.is_success, first.history
    assert len(frames_of(first.files("4")[0])) == NUM_FRAMES
    # The last one was never gone: nothing runs.
    last = video_prompt(strength=strengths[-1])
    server.run(last)
    assert {"1", "2", "3", "4"} <= server.run(last).cached
