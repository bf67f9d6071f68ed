"""Frames in memory: stills, alpha, damage, tiles and comparison."""

import json

import av
import numpy as np
import pytest

from tests.nodes.media import HEIGHT, NUM_FRAMES, RATE, WIDTH, frames_of
from tests.nodes.prompts import (
    assert_goes_on,
    compare_prompt,
    empty_images,
    image_prompt,
    tile_prompt,
)

pytestmark = pytest.mark.comfy


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
    for preset in ("light", "consistent", "inconsistent", "clean", "web"):
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


def test_compare_reads_videos_at_their_own_rate(server, clip):
    run = server.run(compare_prompt())
    assert run.is_success, run.history
    metrics = json.loads(run.text("5"))
    assert metrics["after"]["psnr_db"] == 100
    assert metrics["frames"] == 4
    flicker = metrics["after"]["warping_error"]
    assert flicker == metrics["before"]["warping_error"]
    assert flicker > 0
    (path,) = run.files("4")
    assert len(frames_of(path)) == 4
    with av.open(str(path)) as video:
        assert video.streams.video[0].average_rate == RATE
