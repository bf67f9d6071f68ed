"""`oasis info`: facts about a model, a video or picture, or what this FFmpeg build can write."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ..remote import as_source
from ..words import counted
from ._info_words import info_lines
from ._shared import print_json

MODEL_SUFFIXES = (".safetensors", ".pth", ".pt", ".ckpt", ".bin")
"""Files that hold a model; of the last four `families.files` says that they must be converted."""


def add_parser(commands: Any) -> None:
    """Add the command to the subparsers `commands`."""
    info = commands.add_parser(
        "info", help="describe a model, a file or a folder; `codecs`: what can be written"
    )
    info.add_argument("subject", metavar="MODEL|FILE|FOLDER|codecs")
    info.add_argument("--json", action="store_true")
    info.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Run the command; returns the exit code."""
    facts = describe(arguments.subject)
    if arguments.json:
        print_json(facts)
    elif "folder" in facts:
        for name, text in facts["files"].items():
            print(f"{name}: {text}")
        print(
            f"{facts['folder']}: {counted(facts['videos'], 'video')}, "
            f"{counted(facts['pictures'], 'picture')}"
        )
    elif arguments.subject == "codecs":
        for name, text in facts.items():
            print(f"{name}: {text}")
    else:
        for line in info_lines(facts):
            print(line)
    return 0


def describe(subject: str) -> dict[str, Any]:
    """Facts about a model (bundled name or .safetensors file), a file, or the codecs.

    Raises:
        ValueError: It is none of these.
    """
    if subject == "codecs":
        return _describe_codecs()
    if subject in _presets() or subject.endswith(MODEL_SUFFIXES):
        return _describe_named_model(subject)
    from ..video.names import folder_contents

    folder = Path(subject)
    if folder.is_dir() and (found := folder_contents(folder))[0]:
        return _describe_folder(folder, *found)
    from ..video import probe

    info = probe(subject)
    names = (
        "container codec width height rotation_deg sample_aspect_ratio frame_rate time_base "
        "num_frames duration_s pixel_format bit_depth has_alpha is_interlaced audio_streams "
        "subtitle_streams other_streams"
    )
    values = {name: getattr(info, name) for name in names.split()}
    plain = (bool, int, float, type(None))
    facts = {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in values.items()
        if isinstance(value, (*plain, tuple))
    }
    facts |= {name: str(value) for name, value in values.items() if name not in facts}
    tags = ("primaries", "transfer", "matrix", "range", "chroma_location")
    return {
        "file": str(as_source(subject)),
        **facts,
        "color": {tag: getattr(info.color, tag) for tag in tags},
    }


def _presets() -> set[str]:
    from ..config import PRESETS

    return set(PRESETS)


def _describe_named_model(name: str) -> dict[str, Any]:
    from ..checkpoint import BUNDLED, resolve_model
    from ..families.catalog import describe_file

    if name in _presets() and name not in BUNDLED:
        return _describe_preset(name)
    return describe_file(resolve_model(name))


def _describe_folder(folder: Path, videos: list[Path], images: list[Path]) -> dict[str, Any]:
    """A line for each video and picture of a folder that is not one film of pictures."""
    from ..video import VideoError, probe

    lines = {}
    for path in (*videos, *images):
        try:
            info = probe(path)
        except VideoError as error:
            lines[path.name] = f"cannot be used: {error}"
            continue
        length = "" if info.duration_s is None or path in images else f", {info.duration_s:.1f} s"
        lines[path.name] = (
            f"{info.width}x{info.height}, {info.codec} of {info.bit_depth} bits{length}, "
            f"{counted(len(info.audio_streams), 'sound track')}"
        )
    counts = {"videos": len(videos), "pictures": len(images)}
    return {"folder": str(folder), **counts, "files": lines}


def _describe_codecs() -> dict[str, Any]:
    import av

    from ..video import CODECS, available_codecs

    have = available_codecs()
    facts: dict[str, Any] = {"pyav": av.__version__}
    for name, codec in CODECS.items():
        if codec.takes_surfaces:
            facts[name] = "PyAV cannot hand pictures to it; use the qsv or amf encoder"
        elif name not in have:
            facts[name] = f"this FFmpeg build has no {codec.encoder}"
        else:
            containers = " or ".join(codec.containers)
            facts[name] = f"{codec.encoder} in {containers}"
            facts[name] += f"; needs {codec.needs}" if codec.needs else ""
    return facts


def _describe_preset(name: str) -> dict[str, Any]:
    """Facts about a preset that no weights are bundled for."""
    from ..config import PRESETS
    from ..families.catalog import describe_preset

    config = PRESETS[name]
    return {
        "model": f"{name}, a preset without weights; make some with `oasis convert` or train",
        "config": config.to_json(),
        **describe_preset(config),
    }
