"""Prompts in API form, small enough for many of them."""

import copy
import itertools
import json
from pathlib import Path

from tests.nodes.image_model import NAME as IMAGE_MODEL

ROOT = Path(__file__).resolve().parents[2]
API = ROOT / "workflows" / "api"
# The faithful end: results of the vivid one are further from a plain resize.
MODEL = {
    "model_name": "oasis-tiny",
    "routing": "own",
    "detail": 0.0,
    "compiled": False,
    "int8": False,
}
LOAD = {"class_type": "OASISLoadModel", "inputs": {**MODEL, "dtype": "float32"}}
LOOK = {
    "target": "by scale",
    "scale": 2.0,
    "width": 0,
    "height": 0,
    "strength": 1.0,
    "shots": True,
    "tile_px": 0,
    "segment_frames": 0,
    "color_anchor": True,
}
ENCODING = {
    "codec": "h264",
    "quality": "visually lossless",
    "crf": 10.0,
    "bit_depth": "auto",
    "preview_s": 0.0,
    "file_name": "",
}


def workflow(name):
    return json.loads((API / f"{name}.json").read_text(encoding="utf-8"))


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


STRENGTHS = (step / 1000 for step in itertools.count(500))


def assert_goes_on(server, images=None):
    """The queue still works, on something that no cache holds."""
    run = server.run(image_prompt(images or empty_images(), strength=next(STRENGTHS)))
    assert run.is_success
    assert "3" not in run.cached


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


def node_prompt(node, source=None, **changes):
    """One node, number 3, with cheap settings; 2 is what it works on.

    Args:
        node: Its id.
        source: A node that makes images; a small flat picture without.
        changes: Inputs.
    """
    prompt = {"1": LOAD, "2": source or empty_images()}
    inputs = SETTINGS[node]
    if "video" in inputs:
        prompt["2"] = source or {"class_type": "LoadVideo", "inputs": {"file": "small.mp4"}}
    if "tiles" in inputs:
        prompt["6"] = {"class_type": "OASISSplitTiles", "inputs": SETTINGS["OASISSplitTiles"]}
    if "routing" in inputs and node != "OASISLoadModel":
        values = SETTINGS["OASISCalibrateRouting"]
        prompt["7"] = {"class_type": "OASISCalibrateRouting", "inputs": values}
    if "upscale_model" in inputs:
        loader = {"class_type": "UpscaleModelLoader", "inputs": {"model_name": IMAGE_MODEL}}
        prompt["8"] = loader
    prompt["3"] = {"class_type": node, "inputs": {**inputs, **changes}}
    prompt["4"] = {"class_type": "PreviewAny", "inputs": {"source": ["3", 0]}}
    return copy.deepcopy(prompt)  # the next one begins with the same settings


_LINKS = {"model": ["1", 0], "images": ["2", 0], "video": ["2", 0], "tiles": ["6", 0]}


def _linked(*names, **values):
    return {**{name: _LINKS[name] for name in names}, **values}


_SAMPLING = {"window_heads": -1, "intra_heads": -1, "frames": 2, "crop_px": 64, "sample_seed": 0}
_TILE_LOOK = {name: LOOK[name] for name in ("scale", "strength", "shots", "color_anchor")}
SETTINGS = {
    "OASISLoadModel": LOAD["inputs"],
    "OASISFromUpscaleModel": {"upscale_model": ["8", 0], "dtype": "float32"},
    "OASISUpscaleVideo": _linked("model", "video", **LOOK, **ENCODING),
    "OASISUpscaleImages": _linked("model", "images", frames_are="one clip", **LOOK),
    "OASISCompare": {
        "before": ["2", 0],
        "after": ["2", 0],
        "layout": "split",
        "max_frames": 4,
        "fps": 24.0,
        "flicker": False,
    },
    "OASISSplitTiles": _linked("images", tile_px=64, overlap_px=16),
    "OASISUpscaleTiles": _linked("model", "tiles", **_TILE_LOOK),
    "OASISStitchTiles": _linked("tiles"),
    "OASISDegrade": _linked("images", preset="light", scale=2.0, seed=7),
    "OASISCalibrateRouting": _linked("model", "images", scale=2.0, **_SAMPLING),
    "OASISApplyRouting": {"model": ["1", 0], "routing": ["7", 0], "enabled": True},
    "OASISDenoiseToLatent": _linked("model", "images", scale=2.0, tile_px=0),
    "OASISExampleClip": {},
}
