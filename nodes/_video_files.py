"""Upscaling a VIDEO into a file of ComfyUI's folders."""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from ..oasis_core.codecs import CODECS
from . import _adapters
from ._results import SHELF
from ._sources import Source

logger = logging.getLogger(__name__)


def upscale_on_disk(
    source: Source,
    model: _adapters.LoadedModel,
    settings: dict[str, Any],
    *,
    inputs: Mapping[str, Any],
    report: _adapters.Progress,
    file_name: str = "",
) -> tuple[Path, dict[str, Any]]:
    """Upscale into ComfyUI's temporary folder, or further into its output folder.

    The same job has the same place: a cancelled one goes on where it stopped, and a finished one
    whose result ComfyUI dropped from its cache is not done again.

    Args:
        source: The input.
        model: What upscales it.
        settings: Options of `oasis_core.upscale_file` that decide the result, as JSON values.
        inputs: Of the node, by name.
        report: Told what is done.
        file_name: What the result is called in the output folder, folders before it included;
            empty leaves it in the temporary one, among the last few that are kept.

    Returns:
        The result and the report about it.
    """
    from ..oasis_core import upscale_file
    from ..oasis_core.upscale import journal_path

    if file_name:
        _adapters.check_output_name(file_name)
    settings = {**settings, "bit_depth": _bit_depth(source, settings)}
    path = _result_path(source, model, settings)
    facts = path.with_suffix(".json")
    values = _finished(facts)
    if values is not None:
        report.found()
    else:
        # A cancelled run counts, too: it may be gone on with while it is among the last few.
        _adapters.keep_result(path, inputs, beside=(facts, journal_path(path)))
        with _adapters.running(model, report) as upscaler:
            done = upscale_file(
                source.place,
                path,
                model=upscaler,
                overwrite=True,
                on_segment=report.begin_segment,
                on_progress=report,
                **settings,
            )
        for loss in done.dropped:
            logger.warning("%s: not kept: %s", source.place.name, loss)
        report.finish()
        values = done.to_json()
    place = _placed(Path(values["destination"]), file_name, (values["width"], values["height"]))
    values["destination"] = str(place)
    facts.write_text(json.dumps(values, indent=1), encoding="utf-8")
    if place == path:
        _adapters.keep_result(path, inputs, beside=(facts,))
    else:
        SHELF.forget(path)
    return place, values


def _bit_depth(source: Source, settings: dict[str, Any]) -> int | None:
    """Bits of the result: those asked for, else the file's own or what frames were meant for."""
    wanted, codec = settings.get("bit_depth") or source.bit_depth, CODECS[settings["codec"]]
    if wanted is None or (codec.is_lossless and not settings.get("bit_depth")):
        return None
    depths = codec.depths
    return min((depth for depth in depths if depth >= wanted), default=max(depths))


def _finished(facts: Path) -> dict[str, Any] | None:
    """The report of an earlier run whose result is still there."""
    try:
        report = json.loads(facts.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return report if Path(report["destination"]).is_file() else None


def _placed(path: Path, file_name: str, size: tuple[int, int]) -> Path:
    """Where the result lies in the end, once it is there."""
    is_temporary = path.parent == _adapters.temp_folder()
    if not file_name or (not is_temporary and _adapters.is_named(path, file_name, size)):
        return path
    place = _adapters.new_output(file_name, size, path.suffix)
    try:
        if not is_temporary:
            raise OSError("another graph's result stays where it is")
        path.replace(place)
    except OSError:  # on another disk
        part = place.with_name(place.name + ".part")
        shutil.copy2(path, part)
        part.replace(place)
        if is_temporary:
            path.unlink()
    return place


def _result_path(source: Source, model: _adapters.LoadedModel, settings: dict[str, Any]) -> Path:
    from ..oasis_core.options import OPTIONS

    # As journals tell runs apart: of what came through a socket its content.
    said = {
        name: OPTIONS[name].identify(value) if isinstance(value, Tensor) else value
        for name, value in settings.items()
    }
    identity = json.dumps([source.identity, model.identity, model.dtype, said])
    name = f"oasis_{hashlib.sha256(identity.encode()).hexdigest()[:16]}"
    return _adapters.temp_folder() / (name + CODECS[settings["codec"]].suffix)
