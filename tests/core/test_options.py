"""Options of `oasis upscale`, said once: what the shell and the journals make of the table."""

import json
from pathlib import Path

import pytest

from oasis_core.cli import build_parser
from oasis_core.commands._options import option_values
from oasis_core.option_kinds import HEADINGS
from oasis_core.options import OPTIONS
from oasis_core.upscale import UpscaleOptions
from oasis_core.upscale.look import Look

STORED = Path(__file__).with_name("help.json")
"""Made by this file, `python tests/core/test_options.py`; nothing in it may go or change."""


def values(*words):
    return option_values(build_parser().parse_args(["upscale", "in.mp4", "out.mp4", *words]))


def helps():
    """Command -> heading -> argument -> what stands for its value, choices and help."""
    (commands,) = (a for a in build_parser()._actions if isinstance(a.choices, dict))
    return {
        name: {
            group.title: {
                "/".join(action.option_strings) or action.dest: [
                    str(action.metavar or ""),
                    [str(choice) for choice in action.choices or ()],
                    repr(action.default),
                    repr(action.const),
                    action.help,
                ]
                for action in group._group_actions
                if action.dest != "help"
            }
            for group in parser._action_groups
        }
        for name, parser in commands.choices.items()
    }


def test_help_says_what_it_said():
    found, stored = json.loads(json.dumps(helps())), json.loads(STORED.read_text())
    for command, headings in stored.items():
        for heading, arguments in headings.items():
            said = found[command][heading]
            assert {name: said.get(name) for name in arguments} == arguments, (command, heading)
            # More may come, but the order stays.
            assert [name for name in said if name in arguments] == list(arguments)


def test_who_asks_for_nothing_gets_the_defaults():
    asked = values()
    assert UpscaleOptions(**asked) == UpscaleOptions()
    assert sorted(asked) == sorted(name for name in OPTIONS if OPTIONS[name].shell)


@pytest.mark.parametrize(
    ("words", "name", "value"),
    [
        (("--color-anchor", "off"), "color_anchor", False),
        (("--color-anchor", "on"), "color_anchor", True),
        (("--shots", "off"), "shots", False),
        (("--no-metadata",), "metadata", False),
        (("--deinterlace",), "deinterlace", True),
        (("--tile", "64"), "tile_px", 64),
        (("--segment", "5"), "segment_frames", 5),
        (("--start", "1:02"), "start_s", 62.0),
        (("--size", "640X360"), "size", (640, 360)),
        (("--compare",), "compare", "side"),
        (("--compare", "split"), "compare", "split"),
        (("--fps", "23.976"), "fps", "23.976"),
    ],
)
def test_words_of_the_shell_mean_values(words, name, value):
    assert values(*words) == values() | {name: value}


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--size", "720p0"), "argument --size: must be WIDTHxHEIGHT, like 1280x720, or 240p"),
        (("--start", "soon"), "argument --start: must be a time, like 3s or 1:02:03.5"),
        (("--scale", "big"), "argument --scale: invalid float value: 'big'"),
        (("--shots", "on"), "--shots must be auto or off, got 'on'"),
    ],
)
def test_wrong_words_get_a_sentence(words, sentence, capsys):
    with pytest.raises(SystemExit):
        values(*words)
    assert sentence in capsys.readouterr().err


def test_every_option_has_a_place():
    for choice in OPTIONS.values():
        assert choice.shell is None or choice.shell.heading in HEADINGS, choice.name


def test_what_nobody_asked_for_leaves_journals_as_they_were():
    assert UpscaleOptions().identity("when set") == {}
    always = UpscaleOptions(strength=0.5, tile_px=64).identity("always")
    assert always == {
        "strength": 0.5,
        "color_anchor": True,
        "shots": True,
        "tile_px": 64,
        "segment_frames": None,
        "halo_frames": 2,
    }


def test_a_look_is_what_the_options_say():
    look = Look.of(UpscaleOptions(strength=0.25, color_anchor=False), 64, 48)
    assert look == Look(width=64, height=48, strength=0.25, color_anchor=False)


if __name__ == "__main__":
    STORED.write_text(json.dumps(helps(), indent=1) + "\n")
