import json
import re
from dataclasses import asdict

import pytest

from oasis_core.checkpoint import load_checkpoint, resolve_model
from oasis_core.cli import main
from oasis_core.commands._info_words import info_lines
from oasis_core.config import OASIS_1_3B
from oasis_core.families import tiny, wan
from oasis_core.families.restorer import Traits


def test_facts_are_rounded_and_in_words():
    facts = {
        "parameters": 1_667_616,
        "bytes": 4_346_432,
        "duration_s": 2.9990000001,
        "heads": {"global": 0, "intra": 2, "window": 16},
        "window": (3, 5, 5),
        "has_alpha": False,
        "subtitle_streams": (),
        "source": "trained from runs/some-try-4/x.safetensors by `oasis train`",
        "config": {"width": 192},
        "num_frames": None,
        "color": {"primaries": 9, "transfer": 16, "matrix": 2, "range": 1, "chroma_location": 0},
        "metrics": {
            "light": {"num_clips": 17, "mean_gain_db": 1.99902538281, "warping_error_ratio": 0.387},
            "settings": {"scale": 4, "middle_px": 0},
        },
    }
    assert list(info_lines(facts)) == [
        "parameters: 1.67 million",
        "bytes: 4.3 MB",
        "duration s: 2.999",
        "heads: 0 global, 2 intra, 16 window",
        "window: 3x5x5",
        "has alpha: no",
        "subtitle streams: none",
        "source: trained by `oasis train`",
        "color: primaries BT.2020, transfer PQ, range limited",
        "measured, light: 17 clips, mean gain +2.00 dB",
        "measured with: scale 4",
    ]
    untagged = {"primaries": 2, "transfer": 2, "matrix": 2, "range": 0, "chroma_location": 0}
    assert list(info_lines({"color": untagged})) == ["color: not tagged"]
    assert list(info_lines({"color": {**untagged, "matrix": 77}})) == ["color: matrix number 77"]


def test_the_bundled_model_is_described_for_people(capsys):
    assert main(["info", "oasis-tiny"]) == 0
    out = capsys.readouterr().out
    # No machine's form: no braces, no long fractions, no path but that of the file itself.
    assert not re.search(r"[{}\[\]]|\d\.\d{5}", out), out
    assert [line for line in out.splitlines() if "/" in line and line[:5] != "file:"] == []
    path = resolve_model("oasis-tiny")
    count = sum(p.numel() for p in load_checkpoint(path).model.parameters())
    said = f"{count / 1e6:.2f} million"
    assert f"parameters: {said}\n" in out
    assert f"{said} parameters" in path.with_suffix(".md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("traits", "text"),
    [
        (
            Traits(name="plain", family="module"),
            "on the enlarged picture, at any scale; on several frames at once; tiles that share "
            "32 px; in float32, bfloat16 or float16",
        ),
        (
            Traits(
                name="4x",
                family="image",
                reads="source",
                native_scale=4,
                is_per_frame=True,
                stride=(1, 8, 8),
                tiling="avoid",
                dtypes=("float32", "float16"),
            ),
            "on the source itself, 4 times larger per side, resized to what is wanted; frame by "
            "frame; sides in steps of 8x8 px; whole frames where they fit, else tiles that share "
            "32 px; in float32 or float16",
        ),
        (
            Traits(
                name="stream",
                family="wan",
                stride=(4, 16, 16),
                lead_frames=9,
                halo_frames=1,
                tiling="never",
            ),
            "on the enlarged picture, at any scale; on several frames at once; clips of 4k+1 "
            "frames; sides in steps of 16x16 px; 9 frames before each segment to begin with; 1 "
            "frame looked ahead; never in tiles; in float32, bfloat16 or float16",
        ),
    ],
)
def test_traits_are_said_in_words(traits, text):
    assert list(info_lines({"traits": asdict(traits)})) == [f"works: {text}"]


def test_info_says_how_a_model_works(capsys):
    assert main(["info", "oasis-tiny", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    model = load_checkpoint(resolve_model("oasis-tiny")).model
    assert facts["traits"] == json.loads(json.dumps(asdict(tiny.traits_of(model.config))))
    assert main(["info", "oasis-1.3b", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["traits"] == json.loads(json.dumps(asdict(wan.traits_of(OASIS_1_3B))))
