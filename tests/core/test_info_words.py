import re

from oasis_core.checkpoint import load_checkpoint, resolve_model
from oasis_core.cli import main
from oasis_core.commands._info_words import info_lines


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
