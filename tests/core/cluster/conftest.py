"""A small model and small films for the cluster's tests; ffmpeg's H.264 so that seeking matters."""

import importlib.util
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from oasis_core.checkpoint import save_checkpoint
from oasis_core.config import PRESETS
from oasis_core.model.denoiser import OasisModel
from oasis_core.model.routing import HeadRouting


@pytest.fixture(scope="session")
def model_file(tmp_path_factory):
    """The smallest model of the bundled kind, as a file that every worker can load."""
    path = tmp_path_factory.mktemp("model") / "small.safetensors"
    config = replace(
        PRESETS["oasis-tiny"],
        name="small",
        stem_channels=16,
        out_channels=16,
        num_stem_blocks=1,
        num_decoder_blocks=1,
        width=32,
        num_layers=1,
        num_heads=2,
        ffn_width=32,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = OasisModel(config)
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=0.03)
    save_checkpoint(path, model, HeadRouting.all_global(1, 2), {})
    return path


@pytest.fixture(scope="session")
def make_film():
    """Write a film of textured shots with a sound: few key frames, B-frames, so seeks must work."""
    import av
    import numpy as np

    def make(path, lengths=(30, 12, 30), width=64, height=48, seed=0):
        rng = np.random.default_rng(seed)
        with av.open(str(path), "w") as container:
            video = container.add_stream("libx264", rate=25)
            video.width, video.height, video.pix_fmt = width, height, "yuv420p"
            video.options = {"crf": "20", "preset": "veryfast", "g": "40"}
            sound = container.add_stream("aac", rate=8000, layout="mono")
            for length in lengths:
                blocks = rng.integers(0, 256, (height // 8, width // 8, 3))
                base = np.kron(blocks, np.ones((8, 8, 1)))
                for t in range(length):
                    grain = rng.integers(-9, 9, base.shape)
                    pixels = np.clip(np.roll(base, t, 1) + grain, 0, 255).astype(np.uint8)
                    frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
                    container.mux(video.encode(frame))
            container.mux(video.encode(None))
            for index in range(8000 * sum(lengths) // 25 // 1024):
                tone = np.sin(np.arange(1024) / 9).astype(np.float32)[None]
                frame = av.AudioFrame.from_ndarray(tone, format="fltp", layout="mono")
                frame.sample_rate, frame.pts = 8000, index * 1024
                container.mux(sound.encode(frame))
            container.mux(sound.encode(None))
        return path

    return make


@pytest.fixture(scope="session")
def file_server():
    """The HTTP server of the tests beside this folder."""
    path = Path(__file__).parents[1] / "file_server.py"
    spec = importlib.util.spec_from_file_location("file_server", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.FileServer
