"""Files with the program's own content, each with what reads it: models, recipes, journals."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from oasis_core.checkpoint import BUNDLED, load_checkpoint, save_checkpoint
from oasis_core.commands.info import describe
from oasis_core.config import OASIS_TINY
from oasis_core.model.denoiser import OasisModel
from oasis_core.model.routing import HeadRouting
from oasis_core.training.config import load_training_config
from oasis_core.upscale import journal_path
from oasis_core.upscale.partial import export_partial

from .child import run_in_child
from .clips import write_clip
from .kill import Task, prepare
from .marks import Marks, Trigger, install
from .tally import Campaign

_JOURNAL_FILES = ("manifest.json", "segments.jsonl")


@dataclass(frozen=True, slots=True, kw_only=True)
class DataFile:
    """One kind of file to damage."""

    make: Callable[[Path], bytes]
    """The bytes of a whole one, given an empty folder to work in."""
    read: Callable[[Path, bytes], Any]
    """What the program does with damaged ones, given the same folder."""
    is_text: bool
    few_cases: int
    """Of the short form."""
    many_cases: int
    """Of the long form."""


def data_files(campaign: Campaign) -> dict[str, DataFile]:
    """Every kind, by the name that a table shows."""
    bundled = BUNDLED["oasis-tiny"]
    routing = load_checkpoint(bundled).routing
    files = {
        "model files": DataFile(
            make=lambda _: bundled.read_bytes(),
            read=_read_model,
            is_text=False,
            few_cases=10,
            many_cases=2_000,
        ),
        "small model files": DataFile(
            make=_small_model, read=_read_model, is_text=False, few_cases=30, many_cases=20_000
        ),
        "routing files": DataFile(
            make=lambda _: json.dumps(routing.to_json()).encode(),
            read=_read_routing,
            is_text=True,
            few_cases=300,
            many_cases=20_000,
        ),
        "training recipes (TOML)": DataFile(
            make=lambda _: bundled.with_suffix(".toml").read_bytes(),
            read=_read_recipe,
            is_text=True,
            few_cases=200,
            many_cases=14_000,
        ),
    }
    for name in _JOURNAL_FILES:
        files[f"the journal's {name}"] = DataFile(
            make=partial(_stopped, campaign, name),
            read=partial(_read_journal, campaign, name),
            is_text=True,
            few_cases=20,
            many_cases=2_000,
        )
    return files


def _small_model(folder: Path) -> bytes:
    # Nearly all of it is header, where there is something to get wrong.
    config = replace(OASIS_TINY, name="small", width=12, num_layers=1, ffn_width=8)
    config = replace(
        config, stem_channels=8, out_channels=8, num_stem_blocks=1, num_decoder_blocks=1
    )
    path = folder / "small.safetensors"
    heads = HeadRouting.all_global(config.num_layers, config.num_heads)
    save_checkpoint(path, OasisModel(config), heads, {"licence": "Apache-2.0"})
    return path.read_bytes()


def _read_model(folder: Path, data: bytes) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(data)
    describe(str(path))
    load_checkpoint(path)


def _read_routing(folder: Path, data: bytes) -> None:
    del folder
    # The way of checkpoint metadata, where routing comes from.
    try:
        values = json.loads(data.decode())
    except RecursionError as error:
        raise ValueError("too deep") from error
    HeadRouting.from_json(values)


def _read_recipe(folder: Path, data: bytes) -> None:
    path = folder / "recipe.toml"
    path.write_bytes(data)
    load_training_config(path)


def _journal_task(folder: Path) -> Task:
    options = {"codec": "h264", "preset": "ultrafast"}
    return Task(source=folder / "in.mkv", name="out.mkv", options=options)


def _stopped(campaign: Campaign, name: str, folder: Path) -> bytes:
    """A file of the journal that a run leaves which dies while it joins its segments."""
    task, place = _journal_task(folder), folder / "stopped"
    write_clip(task.source)
    prepare(task, place)

    def stop() -> None:
        install(Marks(), Trigger(stage="mux", entry=1, delay_s=0))
        task.run(campaign, place)

    run_in_child(stop)
    return (journal_path(place / task.name) / name).read_bytes()


def _read_journal(campaign: Campaign, name: str, folder: Path, data: bytes) -> None:
    place = folder / "changed"
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(folder / "stopped", place)
    task = _journal_task(folder)
    (journal_path(place / task.name) / name).write_bytes(data)
    problems = []
    for act in (
        lambda: export_partial(place / task.name, place / "partial.mkv"),
        lambda: task.run(campaign, place),
    ):
        try:
            act()
        except (ValueError, OSError) as error:
            problems.append(error)
    if problems:
        raise problems[0]
