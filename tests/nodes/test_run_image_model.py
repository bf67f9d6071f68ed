"""Models of ComfyUI's own loader in the OASIS nodes."""

import json

import numpy as np
import pytest

from tests.nodes.image_model import NAME, SCALE
from tests.nodes.media import NUM_FRAMES, frames_of, packets_of, sound_of
from tests.nodes.prompts import image_prompt, node_prompt, tile_prompt, workflow

pytestmark = pytest.mark.comfy

LOADER = {"class_type": "UpscaleModelLoader", "inputs": {"model_name": NAME}}
TAKEN = {
    "class_type": "OASISFromUpscaleModel",
    "inputs": {"upscale_model": ["30", 0], "dtype": "float32"},
}
CLIP = {"class_type": "LoadVideo", "inputs": {"file": "hand_held.mp4"}}
PARTS = {"class_type": "GetVideoComponents", "inputs": {"video": ["20", 0]}}
FEW = {
    "class_type": "ImageFromBatch",
    "inputs": {"image": ["21", 0], "batch_index": 0, "length": 2},
}


def with_image_model(prompt):
    """The prompt with the model of ComfyUI's loader in place of ours."""
    return {**prompt, "30": LOADER, "1": TAKEN}


def test_images_are_what_the_model_makes_of_them(server):
    prompt = with_image_model(image_prompt(FEW, scale=float(SCALE), color_anchor=False))
    prompt |= {"20": CLIP, "21": PARTS}
    prompt["5"] = {
        "class_type": "SaveImage",
        "inputs": {"images": ["2", 0], "filename_prefix": "s"},
    }
    run = server.run(prompt)
    assert run.is_success, run.history
    before, after = ([frames_of(path)[0] for path in run.files(node)] for node in ("5", "4"))
    assert len(after) == 2
    for small, large in zip(before, after, strict=True):
        assert np.array_equal(large, small.repeat(SCALE, 0).repeat(SCALE, 1))


def test_a_video_streams_through_with_its_sound(server, clip):
    prompt = workflow("10 Any image model")
    prompt["1"] = LOADER
    prompt["6"] = {**prompt["6"], "inputs": {"upscale_model": ["1", 0], "dtype": "float32"}}
    prompt["2"] = {"class_type": "LoadVideo", "inputs": {"file": clip.name}}
    changes = {"scale": float(SCALE), "codec": "ffv1", "color_anchor": False}
    prompt["3"]["inputs"] |= changes
    run = server.run(prompt)
    assert run.is_success, run.history
    (path,) = run.files("4")
    before, after = frames_of(clip), frames_of(path)
    assert len(after) == len(packets_of(path)) == NUM_FRAMES
    assert sound_of(path) == sound_of(clip)
    for small, large in zip(before, after, strict=True):
        wanted = small.repeat(SCALE, 0).repeat(SCALE, 1).astype(int)
        assert np.abs(large - wanted).mean() < 3  # colour at half the resolution


def test_tiles_take_it(server):
    prompt = with_image_model(tile_prompt(count=1))
    look = {"scale": 1.0, "strength": 1.0, "shots": True, "color_anchor": False}
    inputs = {"model": ["1", 0], "tiles": ["2", 0], "images": ["2", 1], **look}
    prompt["6"] = {"class_type": "OASISUpscaleTiles", "inputs": inputs}
    prompt["3"]["inputs"] = {"tiles": ["6", 0], "images": ["6", 1]}
    run = server.run(prompt)
    assert run.is_success, run.history


def test_its_facts_name_the_architecture_and_the_scale(server):
    run = server.run(
        {
            "30": LOADER,
            "1": TAKEN,
            "5": {"class_type": "PreviewAny", "inputs": {"source": ["1", 1]}},
        }
    )
    assert run.is_success, run.history
    facts = json.loads(run.text("5"))
    assert (facts["model"], facts["scale"]) == (f"RealESRGAN Compact {SCALE}x", SCALE)


def test_nodes_for_routing_and_latents_refuse_it_by_name(server):
    for node, said in (
        ("OASISCalibrateRouting", "routing needs a model with attention heads"),
        ("OASISDenoiseToLatent", "RealESRGAN Compact"),
    ):
        prompt = with_image_model(node_prompt(node))
        run = server.run(prompt)
        (message,) = run.messages("execution_error")
        assert said in message["exception_message"]
