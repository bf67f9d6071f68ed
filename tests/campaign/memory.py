"""Memory stays flat, running out of it costs one segment, and NaN never becomes a black frame."""

from __future__ import annotations

import gc
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch

import oasis_core
from oasis_core.upscale.run import LocalRun

from .child import run_in_child
from .clips import contents, write_clip
from .tally import Campaign

FLAT_BYTES = 64 << 20
LEAK_BYTES = 50 << 20
_BEFORE_RELU = (".conv1",)
"""Layers where minus infinity becomes 0, as would the number that was too small for a float."""
_HUGE = ((16384, 16384), (65535, 65535), (30000, 8), (16383, 16383))


def resident_bytes() -> int:
    """Resident size of this process now."""
    with open("/proc/self/statm", encoding="ascii") as file:  # noqa: PTH123 - not a user's file
        return int(file.read().split()[1]) * 4096


def flat(campaign: Campaign) -> None:
    """Compare a short clip's peak with a long one's, and look for leaks over many runs."""
    short, long = (300, 20_000) if campaign.is_long else (60, 600)
    with campaign.fault(f"peak memory from {short} to {long} frames") as (fault, folder):
        peaks = {}
        for num_frames in (short, long):
            clip = write_clip(
                folder / f"{num_frames}.mkv", num_frames=num_frames, width=16, height=16
            )
            outcome = run_in_child(lambda clip=clip: _peak(campaign, clip), timeout_s=3600)
            peaks[num_frames] = outcome.value if outcome.kind == "done" else None
        if None in peaks.values():
            fault.count("a run failed")
            return
        grown = peaks[long] - peaks[short]
        fault.note = ", ".join(f"{n} frames {peak / 2**20:.0f} MB" for n, peak in peaks.items())
        fault.count(None if grown < FLAT_BYTES else f"grew by {grown / 2**20:.0f} MB")
    num_runs = 50 if campaign.is_long else 20
    with campaign.fault(f"{num_runs} runs in one process") as (fault, folder):
        clip = write_clip(folder / "in.mkv")
        outcome = run_in_child(lambda: _leaked(campaign, clip, num_runs), timeout_s=900)
        if outcome.kind != "done":
            fault.count(f"{outcome.kind} {outcome.text}")
            return
        fault.note = f"{outcome.value / 2**20:.1f} MB more after {num_runs} runs"
        fault.count(None if outcome.value < LEAK_BYTES else fault.note)


def _peak(campaign: Campaign, clip: Path) -> int:
    report = oasis_core.upscale_file(
        clip, clip.with_suffix(".mp4"), model=campaign.upscaler, scale=1, segment_frames=12
    )
    return report.peak_rss_bytes


def _leaked(campaign: Campaign, clip: Path, num_runs: int) -> int:
    before = 0
    for number in range(num_runs):
        if number == 5:  # caches are full by then
            gc.collect()
            before = resident_bytes()
        oasis_core.upscale_file(
            clip, clip.with_suffix(".mp4"), model=campaign.upscaler, scale=2, overwrite=True
        )
    gc.collect()
    return resident_bytes() - before


def out_of_memory(campaign: Campaign) -> None:
    """Raise torch.OutOfMemoryError somewhere in the model; only that segment may repeat."""
    with campaign.fault("torch.OutOfMemoryError inside the model") as (fault, folder):
        random, num_parts = campaign.random("oom"), len(modules_of(campaign))
        clip = write_clip(folder / "in.mkv", width=64, height=48)
        for number in range(campaign.cases(5, 100)):
            part, segment = random.randrange(num_parts), random.randrange(5)
            out = folder / f"{number}.mkv"
            outcome = run_in_child(
                lambda out=out, part=part, segment=segment: _with_hook(
                    campaign, clip, out, segment, part, _run_out
                )
            )
            problem = None
            if outcome.kind != "done":
                problem = f"{outcome.kind} {outcome.text}"
            elif not outcome.value["raised"]:
                problem = "nothing was raised"
            elif outcome.value["frames"] != 14 or max(outcome.value["calls"].values()) > 5:
                problem = f"too much repeated: {outcome.value}"
            elif sum(n > 1 for n in outcome.value["raised"].values()) > 0:
                problem = f"raised more than once: {outcome.value}"
            fault.count(problem and f"part {part} of segment {segment}: {problem}")


def not_finite(campaign: Campaign) -> None:
    """Turn one value inside the model into NaN or infinity, once or always."""
    with campaign.fault("NaN or infinity once inside the model") as (fault, folder):
        random, modules = campaign.random("nan"), modules_of(campaign)
        named = {module: name for name, module in campaign.upscaler.model.named_modules()}
        names, num_parts = [named[module] for module in modules], len(modules)
        clip = write_clip(folder / "in.mkv")
        whole = folder / "whole.mkv"
        run_in_child(lambda: _with_hook(campaign, clip, whole, -1, 0, _run_out))
        expected = contents(whole)
        for number in range(campaign.cases(6, 200)):
            part, segment = random.randrange(num_parts), random.randrange(5)
            value = random.choice((float("nan"), float("inf"), -float("inf")))
            if value == -float("inf") and names[part].endswith(_BEFORE_RELU):
                value = float("nan")
            out = folder / f"{number}.mkv"
            outcome = run_in_child(
                lambda out=out, part=part, segment=segment, value=value: _with_hook(
                    campaign, clip, out, segment, part, _poison(value)
                )
            )
            problem = None
            if outcome.kind != "done":
                problem = f"{outcome.kind} {outcome.text}"
            elif not outcome.value["raised"]:
                problem = "nothing was changed"
            elif contents(out)["frames"] != expected["frames"]:
                problem = "other frames"
            fault.count(problem and f"{value} in part {part}, segment {segment}: {problem}")
    with campaign.fault("NaN always: a sentence, no file") as (fault, folder):
        clip = write_clip(folder / "in.mkv")
        num_parts = len(modules_of(campaign))
        for part in range(0, num_parts, 1 if campaign.is_long else num_parts // 2):
            out = folder / f"{part}.mkv"
            outcome = run_in_child(
                lambda out=out, part=part: _with_hook(
                    campaign, clip, out, None, part, _poison(float("nan"))
                )
            )
            is_good = outcome.kind == "refused" and "finite" in outcome.text and not out.exists()
            fault.count(None if is_good else f"part {part}: {outcome.kind} {outcome.text}")


def _run_out(output: torch.Tensor) -> torch.Tensor:
    del output
    raise torch.OutOfMemoryError("injected: out of memory")


def _poison(value: float) -> Callable[[torch.Tensor], torch.Tensor]:
    def change(output: torch.Tensor) -> torch.Tensor:
        output = output.clone()
        output[tuple(size // 2 for size in output.shape)] = value
        return output

    return change


def modules_of(campaign: Campaign) -> list[torch.nn.Module]:
    """Every part of the model that gives one tensor: layers, norms, blocks, the whole."""
    called: list[torch.nn.Module] = []

    def note(module: torch.nn.Module, inputs: Any, output: Any) -> None:
        del inputs
        if isinstance(output, torch.Tensor):
            called.append(module)

    every = list(campaign.upscaler.model.modules())
    hooks = [module.register_forward_hook(note) for module in every]
    campaign.upscaler.upscale(torch.rand(1, 3, 3, 24, 32), scale=1)
    for handle in hooks:
        handle.remove()
    return [module for module in every if module in called]


def _with_hook(
    campaign: Campaign,
    clip: Path,
    out: Path,
    segment: int | None,
    part: int,
    change: Callable[[torch.Tensor], torch.Tensor],
) -> dict[str, Any]:
    """Upscale with one part's output changed, once in one segment or (None) always."""
    calls: dict[int, int] = {}
    raised: dict[int, int] = {}
    do, now = LocalRun.do, [-1]

    def counted(self: LocalRun, frames: Any) -> None:
        now[0] = frames.index
        do(self, frames)

    LocalRun.do = counted
    modules = modules_of(campaign)

    def hook(module: Any, inputs: Any, output: torch.Tensor) -> torch.Tensor | None:
        del module, inputs
        if (
            now[0] < 0
            or not isinstance(output, torch.Tensor)
            or not (segment is None or (now[0] == segment and now[0] not in raised))
        ):
            return None
        raised[now[0]] = raised.get(now[0], 0) + 1
        return change(output)

    def count(module: Any, inputs: Any) -> None:
        del module, inputs
        calls[now[0]] = calls.get(now[0], 0) + 1

    modules[0].register_forward_pre_hook(count)
    modules[part].register_forward_hook(hook)
    report = oasis_core.upscale_file(
        clip, out, model=campaign.upscaler, scale=2, segment_frames=3, codec="ffv1"
    )
    return {"frames": report.frames, "calls": calls, "raised": raised}


def huge(campaign: Campaign) -> None:
    """Declare sizes and counts that no memory holds; they are refused before it is taken."""
    with campaign.fault("huge declared sizes") as (fault, folder):
        small = write_clip(folder / "small.mkv")
        for number, (width, height) in enumerate(_HUGE):
            path = folder / f"huge{number}.png"
            path.write_bytes(_png_header(width, height))
            fault.count(_refused(campaign, path, folder / "out.png", {"scale": 1}))
            fault.count(_refused(campaign, small, folder / "o.mkv", {"size": (width, height)}))
        clip = folder / "huge.avi"
        with av.open(str(clip), "w") as container:
            stream = container.add_stream("mjpeg", rate=25)
            stream.width, stream.height, stream.pix_fmt = 32, 24, "yuvj420p"
            frame = av.VideoFrame.from_ndarray(np.zeros((24, 32, 3), np.uint8), "rgb24")
            frame.pts, frame.time_base = 0, Fraction(1, 25)
            container.mux(stream.encode(frame.reformat(format="yuvj420p")))
            container.mux(stream.encode(None))
        data = bytearray(clip.read_bytes())
        at = data.index(b"strf") + 12
        data[at : at + 8] = (1 << 20).to_bytes(4, "little") * 2
        clip.write_bytes(data)
        fault.count(_refused(campaign, clip, folder / "p.mkv", {"scale": 1, "strength": 0.0}, True))


def _refused(
    campaign: Campaign, source: Path, out: Path, options: dict[str, Any], may_work: bool = False
) -> str | None:
    outcome = run_in_child(
        lambda: bool(oasis_core.upscale_file(source, out, model=campaign.upscaler, **options)),
        memory_bytes=256 << 20,
        timeout_s=20,
    )
    is_good = outcome.is_clean and (may_work or outcome.kind == "refused")
    return None if is_good else f"{source.name} {options}: {outcome.kind} {outcome.text}"


def _png_header(width: int, height: int) -> bytes:
    import struct
    import zlib

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = b""
    for name, body in ((b"IHDR", header), (b"IDAT", zlib.compress(b"\0" * 1000)), (b"IEND", b"")):
        check = struct.pack(">I", zlib.crc32(name + body))
        chunks += struct.pack(">I", len(body)) + name + body + check
    return b"\x89PNG\r\n\x1a\n" + chunks
