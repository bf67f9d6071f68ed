"""What oasis-tiny would gain if it knew how a clip was degraded.

A bound for any blind model of its size: for each clip the bundled weights' convolutions are trained
on, on training footage, with the one degradation that was drawn for that clip, and then restore it.
`python docs/non_blind.py CLIP... --data FOLDER` prints the gain in PSNR over the bicubic resize
before and after; the network has seen the degradation but never the clip.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import zlib
from pathlib import Path

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from oasis_core.checkpoint import load_checkpoint, resolve_model
from oasis_core.degradation import apply_recipe, degrade, draw_recipe
from oasis_core.degradation.recipe import Step
from oasis_core.evaluation.clips import find_sources, middle_square, read_clip
from oasis_core.evaluation.metrics import psnr, to_uint8
from oasis_core.training.config import StageConfig, TrainingConfig
from oasis_core.training.data import MARGIN_PX, Shard, batches, crop_clip, pan_over_still
from oasis_core.training.footage import Sources, load_sources
from oasis_core.training.loop import Trainer
from oasis_core.upscale import VideoUpscaler

SCALE = 4
SIDE_PX, NUM_FRAMES = 256, 7
CROP_PX, CONTEXT = 128, 2
SAMPLES, USES = 96, 12


def resize_back(low: Tensor, truth: Tensor) -> Tensor:
    """The bicubic resize of `t 3 h w` to the size of the original."""
    return F.interpolate(low, size=truth.shape[2:], mode="bicubic", antialias=True).clamp(0, 1)


def make_shard(steps: tuple[Step, ...], sources: Sources, seed: int) -> Shard:
    """Samples of clips and stills in turn, all degraded by the same steps."""
    side, pairs = CROP_PX + MARGIN_PX, []
    for index in range(SAMPLES):
        generator = torch.Generator().manual_seed(SAMPLES * seed + index)
        pool, crop = ((sources.clips, crop_clip), (sources.stills, pan_over_still))[index % 2]
        source = pool[int(torch.randint(len(pool), (), generator=generator))]
        truth = crop(source, NUM_FRAMES, side, generator)
        low = apply_recipe(truth, steps, size=(side // SCALE,) * 2, generator=generator)
        pairs.append(((truth * 255).round().to(torch.uint8), resize_back(low, truth).half()))
    truths, resized = zip(*pairs, strict=True)
    return Shard(truth=torch.stack(truths), resized=torch.stack(resized))


def train_on(steps: tuple[Step, ...], sources: Sources, num_steps: int, folder: str) -> nn.Module:
    """The bundled model after some steps on one degradation."""
    stage = StageConfig(
        name="non-blind",
        num_steps=num_steps,
        learning_rate=2.5e-4,
        final_learning_rate=5e-6,
        warmup_steps=50,
        batch_size=2,
        num_frames=1,
        context_frames=CONTEXT,
        degraded_frames=NUM_FRAMES,
        crop_px=CROP_PX,
        skip_transformer=True,
        pixel_loss="log_mean_square",
    )
    trainer = Trainer(
        TrainingConfig(
            model="initial",
            initial_model="oasis-tiny",
            data_dirs=(),
            output_dir=folder,
            stages=(stage,),
            samples_per_shard=SAMPLES,
            uses_per_sample=USES,
            autocast_bf16=False,
        )
    )
    index = 0
    while trainer.step < num_steps:
        shard = make_shard(steps, sources, index)
        for batch in batches(shard, trainer.config, 0, index):
            if trainer.step == num_steps:
                break
            trainer.train_step(*batch)
        index += 1
    return trainer.ema.eval()


def gain_db(model: nn.Module, low: Tensor, truth: Tensor) -> float:
    """PSNR over the resize of what a model makes of `t 3 h w`."""
    model.skips_transformer = True
    restored = VideoUpscaler(model).upscale(rearrange(low, "t c h w -> 1 c t h w"), scale=SCALE)
    restored = to_uint8(rearrange(restored, "1 c t h w -> t c h w"))
    return psnr(restored, truth) - psnr(to_uint8(resize_back(low, truth)), truth)


def main() -> None:
    """Print one line per clip and the means."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("clips", nargs="+", type=Path)
    parser.add_argument("--data", required=True, help="folder with training clips and stills")
    parser.add_argument("--preset", default="consistent")
    parser.add_argument("--steps", type=int, default=500)
    arguments = parser.parse_args()
    sources = load_sources((arguments.data,), CROP_PX + MARGIN_PX, NUM_FRAMES)
    gains = []
    print(f"{'clip':24} oasis-tiny  knowing")
    for path in (source.truth for source in find_sources(arguments.clips)):
        truth = middle_square(read_clip(path, NUM_FRAMES, SCALE), SIDE_PX, path.name)
        seed = zlib.crc32(path.name.encode())
        low, _ = degrade(truth, preset=arguments.preset, scale=SCALE, seed=seed)
        generator = torch.Generator().manual_seed(seed)
        steps = draw_recipe(
            arguments.preset, num_frames=NUM_FRAMES, scale=SCALE, generator=generator
        )
        with tempfile.TemporaryDirectory() as folder:
            knowing = train_on(steps, sources, arguments.steps, folder)
        blind = load_checkpoint(resolve_model("oasis-tiny")).model
        gains.append([gain_db(model, low, truth) for model in (blind, knowing)])
        print(f"{path.stem:24} {gains[-1][0]:+10.2f} {gains[-1][1]:+8.2f}", flush=True)
    means = [statistics.mean(column) for column in zip(*gains, strict=True)]
    print(f"{'mean':24} {means[0]:+10.2f} {means[1]:+8.2f}")


if __name__ == "__main__":
    main()
