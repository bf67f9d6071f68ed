"""`oasis convert`: public weights to an oasis checkpoint."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

SOURCES = ("wan2.1",)
DTYPES = ("bfloat16", "float16", "float32")


def add_parser(commands: Any) -> None:
    """Add the command to the subparsers `commands`."""
    parser = commands.add_parser("convert", help="make an oasis checkpoint of public weights")
    parser.add_argument("--source", choices=SOURCES, required=True, help="what FILE is")
    parser.add_argument(
        "file",
        metavar="FILE",
        type=Path,
        help="transformer: a file, an index or a folder of shards",
    )
    parser.add_argument("out", metavar="OUT", type=Path, help="checkpoint to write (.safetensors)")
    parser.add_argument("--vae", type=Path, metavar="FILE", help="Wan2.1 VAE, to decode with")
    parser.add_argument("--tiny", type=Path, metavar="FILE", help="TAEHV taew2_1, a fast decoder")
    parser.add_argument(
        "--context", type=Path, metavar="FILE", help="text features of the empty prompt"
    )
    parser.add_argument(
        "--stem",
        choices=("unshuffle", "latent"),
        default="unshuffle",
        help="unshuffle: read pixels, as the paper, to be trained; latent: Wan's own, needs --vae",
    )
    parser.add_argument("--timestep", type=float, default=1000.0, help="the one step, 0 to 1000")
    parser.add_argument(
        "--keep-timestep", action="store_true", help="keep its embedding, for training"
    )
    parser.add_argument("--dtype", choices=DTYPES, default="bfloat16")
    parser.add_argument("--overwrite", action="store_true", help="replace OUT if it exists")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Run the command; returns the exit code."""
    import torch

    from ..convert.wan import WanOptions, convert_wan

    _check_destination(arguments)
    options = WanOptions(
        stem=arguments.stem,
        timestep=arguments.timestep,
        folds_timestep=not arguments.keep_timestep,
        dtype=getattr(torch, arguments.dtype),
    )
    info = convert_wan(
        arguments.file,
        arguments.out,
        vae=arguments.vae,
        tiny=arguments.tiny,
        context=arguments.context,
        options=options,
    )
    for part, files in info["files"].items():
        for line in files:
            print(f"{part}: {line}")
    print(f"{arguments.out}: written; licence {info['licence']}; context: {info['context']}")
    if info["untrained"]:
        print(f"{info['untrained']} is random: train it before upscaling, or use --stem latent")
    if not (arguments.vae or arguments.tiny):
        print("no decoder: give --vae or --tiny to be able to upscale")
    return 0


def _check_destination(arguments: argparse.Namespace) -> None:
    out = arguments.out
    if out.suffix != ".safetensors":
        raise ValueError(f"OUT must end in .safetensors, got {out}")
    sources = [arguments.file, arguments.vae, arguments.tiny, arguments.context]
    if any(s is not None and s.resolve() in (out.resolve(), out.parent.resolve()) for s in sources):
        raise ValueError(f"OUT must not be, or lie in, what is converted, got {out}")
    if out.exists() and not arguments.overwrite:
        raise ValueError(f"{out} exists; add --overwrite to replace it")
    if not out.parent.is_dir():
        raise ValueError(f"the folder of OUT must exist, got {out.parent}")
