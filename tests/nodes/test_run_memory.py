"""What runs leave in memory, and that the length of a video does not matter."""

import json

import pytest

from tests.nodes.comfy_server import needs_proc
from tests.nodes.media import write_clip
from tests.nodes.prompts import assert_goes_on, empty_images, video_prompt

pytestmark = [pytest.mark.comfy, needs_proc]

RESULT_MIB = 12
"""Of 4 frames of 512x512 as IMAGE."""


def test_ten_runs_leave_nothing_behind(server):
    sizes = []
    for _ in range(13):
        assert_goes_on(server, empty_images(256, 256, 4))
        sizes.append(server.memory_mib())
    # The first runs fill caches; after them ten results would be ten times as much.
    assert sizes[-1] - sizes[2] < 2 * RESULT_MIB, sizes


@pytest.mark.slow
def test_memory_does_not_depend_on_the_length(server):
    peaks = []
    for num_frames in (300, 3000):
        write_clip(server.base / "input" / f"{num_frames}.mp4", num_frames)
        server.forget_peak()
        run = server.run(video_prompt(f"{num_frames}.mp4", scale=1.0, segment_frames=24))
        assert json.loads(run.text("5"))["frames"] == num_frames
        peaks.append(server.memory_mib("VmHWM"))
    print(f"peaks of {peaks} MiB")  # noqa: T201 - for docs/comfyui.md, with pytest -s
    assert peaks[1] - peaks[0] < 15  # the long result is 20 MiB as bytes, 79 as images
