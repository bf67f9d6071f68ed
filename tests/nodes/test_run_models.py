"""Models in ComfyUI: routing, latents, unloading."""

import dataclasses
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from tests.nodes.comfy_server import PYTHON, RUN_S
from tests.nodes.media import frames_of
from tests.nodes.prompts import (
    LOAD,
    STRENGTHS,
    assert_goes_on,
    empty_images,
    image_prompt,
    node_prompt,
    workflow,
)

pytestmark = pytest.mark.comfy


def textured_prompt():
    """Three frames of the bundled clip: attention changes nothing on a flat picture."""
    prompt = image_prompt(empty_images(64, 48, 3))
    prompt["6"] = {"class_type": "LoadVideo", "inputs": {"file": "hand_held.mp4"}}
    prompt["7"] = {"class_type": "GetVideoComponents", "inputs": {"video": ["6", 0]}}
    values = {"image": ["7", 0], "batch_index": 0, "length": 3}
    prompt["2"] = {"class_type": "ImageFromBatch", "inputs": values}
    return prompt


def test_routing_is_applied_and_undone(server):
    prompt = textured_prompt()
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
    # Strengths differ by thousandths, so a few values round to the other side in any case.
    assert abs(own - again).max() <= 1
    assert abs(routed - everything).max() <= 1
    rounded = max((own != again).mean(), (routed != everything).mean())
    assert (own != everything).mean() > 3 * rounded


def test_the_transformer_is_left_out_and_comes_back(server):
    prompt, pictures = textured_prompt(), []
    for routing in ("own", "no transformer", "own"):
        prompt["1"] = {**LOAD, "inputs": {**LOAD["inputs"], "routing": routing}}
        prompt["3"]["inputs"]["strength"] = next(STRENGTHS)  # past the cache
        run = server.run(prompt)
        assert run.is_success, run.history
        pictures.append(frames_of(run.files("4")[0])[0].astype(int))
    own, without, again = pictures
    assert abs(own - again).max() <= 1
    assert (own != without).mean() > 3 * (own != again).mean()


def test_a_model_that_is_all_transformer_keeps_it(server, small_model):
    prompt = image_prompt(empty_images(64, 48, 1))
    prompt["1"] = {**small_model, "inputs": {**small_model["inputs"], "routing": "no transformer"}}
    run = server.run(prompt)
    assert not run.is_success
    assert "small-1.3b is all transformer, so it cannot be left out" in run.error


@pytest.fixture(scope="module")
def small_model(server):
    """A model of the oasis-1.3b family with few weights, as a file that ComfyUI lists."""
    torch = pytest.importorskip("torch")

    from oasis_core.checkpoint import save_checkpoint
    from oasis_core.config import OASIS_1_3B
    from oasis_core.model.denoiser import build_model
    from oasis_core.model.routing import HeadRouting

    small = {"width": 48, "num_layers": 2, "num_heads": 4, "ffn_width": 64, "vae_width": 4}
    config = dataclasses.replace(OASIS_1_3B, name="small-1.3b", **small)
    torch.manual_seed(0)
    file = server.base / "models" / "oasis" / "small.safetensors"
    save_checkpoint(file, build_model(config), HeadRouting.all_global(2, 4), {})
    return {**LOAD, "inputs": {**LOAD["inputs"], "model_name": file.name}}


def test_latent_has_the_format_of_wan(server, small_model):
    from safetensors import safe_open

    prompt = node_prompt("OASISDenoiseToLatent", empty_images(30, 70, 6), tile_px=64)
    prompt["1"] = small_model
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
    assert "got oasis-tiny, which predicts none" in server.run(prompt).error
    assert_goes_on(server)


@pytest.mark.slow
@pytest.mark.parametrize("option", ["compiled", "int8"])
def test_what_makes_a_large_model_faster_hardly_changes_the_picture(server, small_model, option):
    if option == "compiled" and shutil.which("g++") is None:
        pytest.skip("no compiler")
    pictures = []
    for is_on in (False, True):
        prompt = textured_prompt()
        prompt["1"] = {**small_model, "inputs": {**small_model["inputs"], option: is_on}}
        run = server.run(prompt)
        assert run.is_success, run.history
        pictures.append(frames_of(run.files("4")[0])[0].astype(int))
    assert abs(pictures[0] - pictures[1]).mean() < 2
    assert "torch.compile failed" not in server.log.read_text()


@pytest.fixture(scope="module")
def wan_models(server, comfyui):
    """Files of the names that the workflows around Wan 2.1 ask for, with random weights."""
    names = ("vae/wan_2.1_vae", "diffusion_models/wan2.1_t2v_1.3B_fp16")
    files = [server.base / "models" / f"{name}.safetensors" for name in names]
    for file in files:
        file.parent.mkdir(exist_ok=True)
    script = Path(__file__).with_name("make_wan_models.py")
    command = [PYTHON, str(script), str(comfyui), *map(str, files)]
    subprocess.run(command, check=True, cwd=comfyui, timeout=RUN_S)
    yield
    for file in files:
        file.unlink()


@pytest.mark.slow
def test_latent_workflow_decodes_with_the_vae_of_comfyui(server, small_model, wan_models):
    prompt = workflow("9 Denoise to latent")
    prompt["1"] = small_model
    prompt["4"] = empty_images(30, 70, 9)
    run = server.run(prompt)
    assert run.is_success, run.history
    frames = frames_of(run.files("10")[0])
    assert len(frames) == 9
    assert frames[0].shape == (144, 64, 3)


@pytest.mark.slow
def test_workflow_after_a_generator_runs_in_small(server, wan_models):
    prompt = workflow("8 After text to video")
    del prompt["2"]  # the text encoder has only one size
    for node, seed in (("5", 1), ("6", 2)):
        prompt[node] = {"class_type": "RandomConditioning", "inputs": {"seed": seed}}
    prompt["7"]["inputs"] |= {"width": 64, "height": 48, "length": 5}
    prompt["8"]["inputs"]["steps"] = 2
    run = server.run(prompt)
    assert run.is_success, run.history
    frames = frames_of(run.files("13")[0])
    assert len(frames) == 5
    assert frames[0].shape == (96, 128, 3)


def test_model_is_used_again_after_unloading(server):
    def num_loads():
        return server.log.read_text().count("Requested to load OasisModel")

    assert_goes_on(server)
    before, end = num_loads(), time.monotonic() + RUN_S
    while num_loads() == before:
        # The server unloads between two runs, at a time of its own choosing.
        assert time.monotonic() < end
        server.post("/free", {"unload_models": True, "free_memory": False})
        time.sleep(0.5)
        assert_goes_on(server)
