"""`oasis convert`: public weights to a file that models are loaded from."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ..choices import DTYPES
from ..words import counted

SOURCES = ("image", "wan2.1", "infvsr", "flashvsr-1.1")
ONLY_FOR = {
    "wan2.1": ("context", "stem", "timestep", "keep_timestep"),
    "infvsr": ("visual", "visual_lora"),
    "flashvsr-1.1": ("projector", "prompt"),
    "image": ("licence", "origin"),
}
"""Options that one source alone has."""


def add_parser(commands: Any) -> None:
    """Add the command to the subparsers `commands`."""
    parser = commands.add_parser("convert", help="make a model file of public weights")
    parser.add_argument(
        "--source",
        choices=SOURCES,
        default="image",
        help="what FILE is; image (default): any single-image upscaler that spandrel knows",
    )
    parser.add_argument(
        "file",
        metavar="FILE",
        type=Path,
        help="the model; a transformer may be an index or a folder of shards, too",
    )
    parser.add_argument("out", metavar="OUT", type=Path, help="checkpoint to write (.safetensors)")
    parser.add_argument("--vae", type=Path, metavar="FILE", help="Wan2.1 VAE, to decode with")
    parser.add_argument(
        "--tiny",
        type=Path,
        metavar="FILE",
        help="TAEHV taew2_1, a fast VAE; of FlashVSR its own TCDecoder",
    )
    parser.add_argument("--dtype", choices=DTYPES, default="bfloat16")
    image = parser.add_argument_group("an image model", "noted in OUT, where FILE does not say it")
    image.add_argument("--licence", metavar="NAME", help="such as CC-BY-4.0")
    image.add_argument("--origin", metavar="URL", help="where it is from")
    parser.add_argument("--overwrite", action="store_true", help="replace OUT if it exists")
    infvsr = parser.add_argument_group("InfVSR (--source infvsr), restores in one step")
    infvsr.add_argument("--visual", type=Path, metavar="FILE", help="RAM, ram_swin_large_14m.pth")
    infvsr.add_argument("--visual-lora", type=Path, metavar="FILE", help="SeeSR's DAPE.pth")
    flashvsr = parser.add_argument_group("FlashVSR v1.1 (--source flashvsr-1.1), likewise")
    flashvsr.add_argument("--projector", type=Path, metavar="FILE", help="LQ_proj_in.ckpt")
    flashvsr.add_argument("--prompt", type=Path, metavar="FILE", help="posi_prompt.pth")
    wan = parser.add_argument_group("Wan2.1 (--source wan2.1), to be trained")
    wan.add_argument(
        "--context", type=Path, metavar="FILE", help="text features of the empty prompt"
    )
    wan.add_argument(
        "--stem",
        choices=("unshuffle", "latent"),
        help="unshuffle (default): read pixels, as the paper; latent: Wan's own, needs --vae",
    )
    wan.add_argument("--timestep", type=float, help="the one step, 0 to 1000 (default 1000)")
    wan.add_argument(
        "--keep-timestep", action="store_true", help="keep its embedding, for training"
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Run the command; returns the exit code."""
    _check_destination(arguments)
    _check_options(arguments)
    if arguments.source == "image":
        return _convert_image(arguments)
    makers = {"infvsr": _convert_infvsr, "flashvsr-1.1": _convert_flashvsr}
    info = makers.get(arguments.source, _convert_wan)(arguments)
    for part, files in info["files"].items():
        for line in files:
            print(f"{part}: {line}")
    for part, names in info.get("unused", {}).items():
        if names:
            print(f"{part}: {counted(len(names), 'tensor')} not used, e.g. {names[0]}")
    print(f"{arguments.out}: written; licence {info['licence']}; context: {info['context']}")
    if info["untrained"]:
        print(f"{info['untrained']} is random: train it before upscaling, or use --stem latent")
    if not (arguments.vae or arguments.tiny):
        print("no decoder: give --vae or --tiny to be able to upscale")
    return 0


def _convert_image(arguments: argparse.Namespace) -> int:
    from ..convert.image import convert_image

    facts = convert_image(
        arguments.file, arguments.out, licence=arguments.licence, origin=arguments.origin
    )
    licence = facts.get("licence", "not stated")
    print(f"{arguments.out}: {facts['architecture']}, {facts['scale']}x; licence {licence}")
    return 0


def _convert_wan(arguments: argparse.Namespace) -> dict[str, Any]:
    import torch

    from ..convert.wan import WanOptions, convert_wan

    options = WanOptions(
        stem=arguments.stem or "unshuffle",
        timestep=1000.0 if arguments.timestep is None else arguments.timestep,
        folds_timestep=not arguments.keep_timestep,
        dtype=getattr(torch, arguments.dtype),
    )
    return convert_wan(
        arguments.file,
        arguments.out,
        vae=arguments.vae,
        tiny=arguments.tiny,
        context=arguments.context,
        options=options,
    )


def _convert_infvsr(arguments: argparse.Namespace) -> dict[str, Any]:
    import torch

    from ..convert.infvsr import InfvsrFiles, convert_infvsr

    files = InfvsrFiles(
        transformer=arguments.file,
        visual=arguments.visual,
        visual_lora=arguments.visual_lora,
        vae=arguments.vae,
        tiny=arguments.tiny,
    )
    return convert_infvsr(files, arguments.out, dtype=getattr(torch, arguments.dtype))


def _convert_flashvsr(arguments: argparse.Namespace) -> dict[str, Any]:
    import torch

    from ..convert.flashvsr import FlashvsrFiles, convert_flashvsr

    files = FlashvsrFiles(
        transformer=arguments.file,
        projector=arguments.projector,
        prompt=arguments.prompt,
        tiny=arguments.tiny,
        vae=arguments.vae,
    )
    return convert_flashvsr(files, arguments.out, dtype=getattr(torch, arguments.dtype))


def _check_options(arguments: argparse.Namespace) -> None:
    """Refuse options of another source, and a source without what it needs."""
    for source, names in ONLY_FOR.items():
        given = [name for name in names if getattr(arguments, name) not in (None, False)]
        if source != arguments.source and given:
            raise ValueError(
                f"--{given[0].replace('_', '-')} is for --source {source}; leave it out"
            )
    if arguments.source == "image" and (arguments.vae or arguments.tiny):
        raise ValueError("--vae and --tiny are for large models; leave them out")
    if arguments.source == "infvsr" and None in (arguments.visual, arguments.visual_lora):
        raise ValueError(
            "--source infvsr needs --visual ram_swin_large_14m.pth and --visual-lora DAPE.pth: the "
            "features of a picture guide it"
        )
    if arguments.source == "flashvsr-1.1" and None in (arguments.projector, arguments.prompt):
        raise ValueError(
            "--source flashvsr-1.1 needs --projector LQ_proj_in.ckpt and --prompt posi_prompt.pth: "
            "it was trained with both"
        )


def _check_destination(arguments: argparse.Namespace) -> None:
    out = arguments.out
    if out.suffix != ".safetensors":
        raise ValueError(f"the file to write must end in .safetensors, got {str(out)!r}")
    names = ("file", "vae", "tiny", "context", "visual", "visual_lora", "projector", "prompt")
    sources = [getattr(arguments, name) for name in names]
    if any(s is not None and s.resolve() in (out.resolve(), out.parent.resolve()) for s in sources):
        raise ValueError(f"OUT must not be, or lie in, what is converted, got {out}")
    if out.exists() and not arguments.overwrite:
        raise ValueError(f"{out} exists; add --overwrite to replace it")
    if not out.parent.is_dir():
        raise ValueError(f"the folder of OUT must exist, got {out.parent}")
