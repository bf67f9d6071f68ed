"""`oasis doctor`: what is installed here, what `auto` takes and why, and whether it computes right.

Its text is made to be pasted into a bug report: no names of users, machines or folders.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import tempfile
from fractions import Fraction
from importlib import metadata
from pathlib import Path
from typing import Any

from ..choices import BUNDLED
from ..codecs import CODECS
from ..extras import MODULES, install_hint, missing_modules
from ..version import __version__
from ..words import counted
from ._shared import print_json

NEEDED = ("torch", "av", "numpy", "einops", "safetensors", "tqdm")
TRIAL_SIZE = (640, 384)
"""Encoders of hardware refuse very small pictures."""
PLANNED = ((640, 360), (2560, 1440))
"""Sizes of a usual film, for the plan that is shown."""
COMFYUI_FOLDERS = ("oasis", "upscale_models")
"""Below ComfyUI's `models`, where this package lies in its `custom_nodes`."""


def add_parser(commands: Any) -> None:
    """Add the command to the subparsers `commands`."""
    parser = commands.add_parser(
        "doctor", help="what is installed, what auto takes, a self-test: for a bug report"
    )
    parser.add_argument(
        "folders", nargs="*", type=Path, metavar="FOLDER", help="with models (default: here)"
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps")
    parser.add_argument(
        "--no-test", action="store_true", help="leave the self-test out, which takes ten seconds"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Run the command; returns the exit code, 1 if something is wrong."""
    for folder in arguments.folders:
        if not folder.is_dir():
            raise ValueError(f"{str(folder)!r} is no folder; name one that holds models")
    facts: dict[str, Any] = {}
    for part in (_versions, _machine, _devices, _encoders, _extras, _models, _choice, _test):
        found = part(arguments)
        facts |= found
        if not arguments.json:
            for name, text in found.items():
                for line in [text] if isinstance(text, str) else text:
                    print(f"{name}: {line}", flush=True)
    faults = facts.get("wrong", ())
    if arguments.json:
        print_json(facts)
    elif not faults:
        print("nothing wrong was found")
    return 1 if faults else 0


def _versions(_: argparse.Namespace) -> dict[str, Any]:
    found = {name: _version(name) for name in NEEDED}
    lacking = [name for name, version in found.items() if version is None]
    if "torch" not in lacking:
        import torch

        found["torch"] = torch.__version__  # which names the build, +cpu or +cu130, too
    texts = [f"{name} {version}" for name, version in found.items() if version is not None]
    if "av" not in lacking:
        import av

        texts.append("FFmpeg's libavcodec " + ".".join(map(str, av.library_versions["libavcodec"])))
    facts = {"oasis": f"{__version__}, Python {platform.python_version()}"}
    facts["packages"] = ", ".join(texts)
    if lacking:
        raise ValueError(
            f"the packages {', '.join(lacking)} are missing: pip install {' '.join(lacking)}"
        )
    return facts


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _machine(_: argparse.Namespace) -> dict[str, Any]:
    import torch

    from ..upscale.memory import free_host_bytes

    processor = _processor_name() or platform.machine() or "unknown"
    threads = counted(torch.get_num_threads(), "thread")
    return {
        "system": f"{platform.system()} {platform.release()}, {platform.machine()}",
        "processor": f"{processor}, {counted(_num_cores(), 'core')} for this process, torch "
        f"takes {threads}, {torch.backends.cpu.get_cpu_capability()}",
        "memory": f"{free_host_bytes() / 2**30:.1f} GiB free",
        "disk": f"{shutil.disk_usage(Path()).free / 1e9:.1f} GB free in this folder, "
        f"{shutil.disk_usage(tempfile.gettempdir()).free / 1e9:.1f} GB in the temporary one",
    }


def _num_cores() -> int:
    affinity = getattr(os, "sched_getaffinity", None)  # not on macOS and Windows
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def _processor_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return platform.processor()
    return next((x.partition(":")[2].strip() for x in lines if x.startswith("model name")), "")


def _devices(_: argparse.Namespace) -> dict[str, Any]:
    import torch

    lines = []
    for index in range(torch.cuda.device_count()):
        facts = torch.cuda.get_device_properties(index)
        kind = f"HIP {torch.version.hip}" if torch.version.hip else f"CUDA {torch.version.cuda}"
        lines.append(
            f"cuda:{index}, {facts.name}, {facts.total_memory / 2**30:.1f} GiB, compute "
            f"capability {facts.major}.{facts.minor}, {kind}"
        )
    if torch.backends.mps.is_available():
        lines.append("mps")
    if not torch.cuda.is_available():
        built = torch.version.hip or torch.version.cuda
        # The usual fault on machines that have a GPU: a torch without support for it.
        lines.append("no CUDA GPU" + ("" if built else "; this torch was built without CUDA"))
    return {"devices": [*lines, "cpu"]}


def _encoders(_: argparse.Namespace) -> dict[str, Any]:
    from ..video import EncodeSpec, VideoError, check_encoder

    usable, others = [], []
    for name, codec in CODECS.items():
        if codec.takes_surfaces:
            continue  # PyAV cannot feed it anywhere
        try:
            check_encoder(
                EncodeSpec(
                    codec=name,
                    width=TRIAL_SIZE[0],
                    height=TRIAL_SIZE[1],
                    frame_rate=Fraction(25),
                    time_base=Fraction(1, 25),
                    bit_depth=min(codec.depths),
                )
            )
            usable.append(name)
        except VideoError:
            others.append(name)
    facts = {"encoders": ", ".join(usable) or "none"}
    if others:
        facts["encoders that do not start here"] = ", ".join(others)
    return facts


def _extras(_: argparse.Namespace) -> dict[str, Any]:
    lacking = {name: missing_modules(name) for name in MODULES}
    lines = ["installed: " + (", ".join(n for n, lacks in lacking.items() if not lacks) or "none")]
    lines += [
        f"{name} lacks {', '.join(lacks)}: {install_hint(name)}"
        for name, lacks in lacking.items()
        if lacks
    ]
    return {"extras": lines}


def _models(arguments: argparse.Namespace) -> dict[str, Any]:
    from ..checkpoint import CheckpointError
    from ..families.catalog import describe_file

    lines = list(BUNDLED)
    for folder in arguments.folders or [Path(), *_comfyui_folders()]:
        for path in sorted(folder.glob("*.safetensors")):
            try:
                name = describe_file(path)["model"]
            except CheckpointError as error:
                # Without its folder: this is read by others.
                name = f"not usable, {str(error).replace(str(path), path.name)}"
            except ValueError as error:
                name = f"not usable, {error}"
            lines.append(f"{path.name}: {name}")
    return {"models": lines}


def _comfyui_folders() -> list[Path]:
    package = Path(__file__).resolve().parents[2]
    if package.parent.name != "custom_nodes":
        return []
    return [package.parents[1] / "models" / name for name in COMFYUI_FOLDERS]


def _choice(arguments: argparse.Namespace) -> dict[str, Any]:
    from .. import load

    upscaler = arguments.upscaler = load(device=arguments.device)
    source, size = PLANNED
    reason = f" ({upscaler.dtype_reason})" if upscaler.dtype_reason else ""
    name = str(upscaler.dtype).removeprefix("torch.")
    plan = upscaler.plan(source, size)
    return {
        "auto": [
            f"{upscaler.name} on {upscaler.device} in {name}{reason}",
            f"{source[0]}x{source[1]} to {size[0]}x{size[1]}: {plan}",
        ]
    }


def _test(arguments: argparse.Namespace) -> dict[str, Any]:
    if arguments.no_test:
        return {"self-test": "left out"}
    from ._self_test import HEIGHT, NUM_FRAMES, WIDTH, run_self_test

    found = run_self_test(arguments.upscaler)
    lines = [
        f"a drawn film of {NUM_FRAMES} frames made {WIDTH}x{HEIGHT}: {found.gain_db:.1f} dB nearer "
        "to the drawing than the plain resize",
        f"about {found.seconds_per_720p:.2f} s for a frame of 1280x720, while other work goes on "
        f"here as it does; peak memory {found.peak_bytes / 1e9:.2f} GB",
    ]
    if found.agreement_db is not None:
        lines.append(f"{found.agreement_db:.0f} dB from the processor's result in float32")
    facts: dict[str, Any] = {"self-test": lines}
    if found.faults:
        facts["wrong"] = list(found.faults)
    return facts
