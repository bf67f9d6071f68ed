"""Training samples: crops of clips, and of stills under a synthetic camera, then degraded.

Samples are made in shards of a few hundred, each from its own seed, so that step n of a run is the
same whether the run was interrupted or not.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor
from torch.utils.data import DataLoader

from ..degradation import apply_recipe, draw_recipe
from ..degradation.batch import ClipInWork, apply_recipes
from ..extras import need
from .archives import ArchivedFootage, find_archives
from .config import StageConfig, TrainingConfig, TrainingError
from .footage import Sources, load_sources
from .graphics import SIDE_PX, draw_stills

MARGIN_PX = 32
"""A sample is this much larger than the crop, so that its uses can differ."""
TRIPOD_SHARE = 0.2
SHARE_AT_ENDS = 0.3
"""Share of the steps that may have fewer frames of context, as at the ends of a shot."""
CLIPS_AT_ONCE = 32
"""Clips that an accelerator degrades together."""


@dataclass(frozen=True, slots=True)
class Shard:
    """Degraded samples and their truth."""

    truth: Tensor
    """`n t 3 s s`, uint8."""
    resized: Tensor
    """The degraded samples resized back, `n t 3 s s`, float16."""


@dataclass(frozen=True, slots=True)
class Accelerator:
    """What degrades samples in place of the processes that make them."""

    device: torch.device
    """Runs the pictures' operators."""
    pool: Executor
    """Runs the codecs."""


def _integer(high: int, generator: torch.Generator) -> int:
    return int(torch.randint(high, (), generator=generator)) if high > 0 else 0


def _uniform(low: float, high: float, generator: torch.Generator) -> float:
    return low + (high - low) * float(torch.rand((), generator=generator))


def crop_clip(clip: Tensor, num_frames: int, side: int, generator: torch.Generator) -> Tensor:
    """A random space-time crop of a clip, `t 3 s s` float in [0, 1]."""
    stride = 1 + _integer(min(2, (len(clip) - 1) // max(1, num_frames - 1)), generator)
    start = _integer(len(clip) - stride * (num_frames - 1), generator)
    top = _integer(clip.shape[2] - side + 1, generator)
    left = _integer(clip.shape[3] - side + 1, generator)
    frames = clip[start : start + stride * (num_frames - 1) + 1 : stride]
    return frames[:, :, top : top + side, left : left + side].float() / 255


def pan_over_still(still: Tensor, num_frames: int, side: int, generator: torch.Generator) -> Tensor:
    """A hand-held camera over a still, `t 3 s s` float in [0, 1].

    Speed up to 4 px a frame, rotation up to 0.4 degrees, zoom up to 0.6 % a frame, with jitter; one
    in five stands on a tripod. Otherwise only footage would stand still, whose own coding smooths
    what does, and a model that sees several frames learns to smooth it, too.
    """
    _, _, height, width = still.shape
    time = torch.arange(num_frames) - (num_frames - 1) / 2
    speed = _uniform(0, 4, generator) * (_uniform(0, 1, generator) > 0.15)
    heading = _uniform(-math.pi, math.pi, generator)
    jitter = torch.randn(2, num_frames, generator=generator) * _uniform(0, 0.7, generator)
    if _uniform(0, 1, generator) < TRIPOD_SHARE:
        time, jitter = torch.zeros_like(time), torch.zeros_like(jitter)
    spin, zoom = _uniform(-0.007, 0.007, generator), _uniform(-0.006, 0.006, generator)
    angle = _uniform(-0.1, 0.1, generator) + spin * time
    reach = side / 2 + 2
    center_x = _uniform(min(reach, width / 2), max(width - reach, width / 2), generator)
    center_y = _uniform(min(reach, height / 2), max(height - reach, height / 2), generator)
    scale = torch.exp(zoom * time)
    x0 = center_x + speed * math.cos(heading) * time + jitter[0]
    y0 = center_y + speed * math.sin(heading) * time + jitter[1]
    offset = torch.arange(side) - (side - 1) / 2
    dy, dx = torch.meshgrid(offset, offset, indexing="ij")
    cos, sin = (f(angle)[:, None, None] * scale[:, None, None] for f in (torch.cos, torch.sin))
    x = x0[:, None, None] + cos * dx - sin * dy
    y = y0[:, None, None] + sin * dx + cos * dy
    grid = torch.stack([(2 * x + 1) / width - 1, (2 * y + 1) / height - 1], dim=-1)
    frames = still.float().div(255).expand(num_frames, -1, -1, -1)
    sampled = F.grid_sample(
        frames, grid, mode="bicubic", padding_mode="reflection", align_corners=False
    )
    return sampled.clamp(0, 1)


def _draw_share(shares: dict[str, float], generator: torch.Generator) -> str:
    keys = sorted(shares)
    weights = torch.tensor([float(shares[key]) for key in keys])
    return keys[int(torch.multinomial(weights, 1, generator=generator))]


def _draw_sample(
    config: TrainingConfig, stage: StageConfig, sources: Sources, generator: torch.Generator
) -> ClipInWork:
    """A sharp clip and what is to be done to it."""
    side = stage.crop_px + MARGIN_PX
    is_still = sources.stills and (
        not sources.clips or _uniform(0, 1, generator) < config.still_share
    )
    pool = sources.stills if is_still else sources.clips
    source = pool[_integer(len(pool), generator)]
    crop = pan_over_still if is_still else crop_clip
    truth = crop(source, stage.frames_read, side, generator)
    scale = float(_draw_share(stage.scales, generator))
    preset = _draw_share(stage.degradations, generator)
    steps = draw_recipe(
        preset,
        num_frames=stage.frames_read,
        scale=scale,
        generator=generator,
        codecs=config.codecs,
    )
    return ClipInWork(clip=truth, steps=steps, size=(round(side / scale),) * 2, generator=generator)


def _resized_back(degraded: Tensor, side: int) -> Tensor:
    resized = F.interpolate(
        degraded, size=(side, side), mode="bicubic", antialias=True, align_corners=False
    )
    return resized.clamp(0, 1).half().cpu()


def _degrade_here(job: ClipInWork) -> Tensor:
    degraded = apply_recipe(job.clip, job.steps, size=job.size, generator=job.generator)
    return _resized_back(degraded, job.clip.shape[-1])


def _degrade_on(device: torch.device, jobs: list[ClipInWork], pool: Executor) -> list[Tensor]:
    """The same for many clips on an accelerator, some at a time."""
    results = []
    for start in range(0, len(jobs), CLIPS_AT_ONCE):
        some = [
            dataclasses.replace(job, clip=job.clip.to(device))
            for job in jobs[start : start + CLIPS_AT_ONCE]
        ]
        side = some[0].clip.shape[-1]
        results += [_resized_back(degraded, side) for degraded in apply_recipes(some, pool)]
    return results


def sample_seed(*numbers: int) -> int:
    """One seed from several numbers, so that every sample has its own."""
    seed = 0
    for number in numbers:
        seed = (seed * 1_000_003 + number) % 2**63
    return seed


def make_shard(
    config: TrainingConfig,
    stage_index: int,
    shard_index: int,
    sources: Sources | ArchivedFootage,
    places: range | None = None,
    accelerator: Accelerator | None = None,
) -> Shard:
    """Make one shard; the same for the same configuration, stage and index.

    Sample i is always used at place i modulo the batch size of a batch, so that each of several
    processes makes the samples of its places only, and all together what one would have made.

    Args:
        config: The run.
        stage_index: The stage.
        shard_index: Counts from zero within the stage.
        sources: Footage.
        places: The places of a batch that this process fills; None: all.
        accelerator: Degrades the samples; None: this process, on the CPU.
    """
    stage = config.stages[stage_index]
    places = range(stage.batch_size) if places is None else places
    num_samples = config.samples_per_shard // stage.batch_size * stage.batch_size
    drawn = {}
    for place in places:
        footage = sources.at(shard_index, place)
        for index in range(place, num_samples, stage.batch_size):
            seed = sample_seed(config.seed, stage_index, shard_index, index)
            generator = torch.Generator().manual_seed(seed)
            drawn[index] = _draw_sample(config, stage, footage, generator)
    jobs = [drawn[index] for index in sorted(drawn)]
    if accelerator is None:
        resized = [_degrade_here(job) for job in jobs]
    else:
        resized = _degrade_on(accelerator.device, jobs, accelerator.pool)
    truth = [(job.clip * 255).round().to(torch.uint8) for job in jobs]
    return Shard(truth=torch.stack(truth), resized=torch.stack(resized))


def batches(
    shard: Shard,
    config: TrainingConfig,
    stage_index: int,
    shard_index: int,
    places: range | None = None,
    skip: int = 0,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches of one shard: shuffled, cropped on the token grid, flipped, turned, reversed.

    Args:
        shard: From `make_shard` with the same places.
        config: The run.
        stage_index: The stage.
        shard_index: The shard's index.
        places: The places of a batch that this process fills; None: all.
        skip: Batches at the beginning that were used already.

    Yields:
        Input (the resized degraded clip) and truth, both `b 3 t s s` float32 in [0, 1].
    """
    stage = config.stages[stage_index]
    places = range(stage.batch_size) if places is None else places
    num_rounds = config.samples_per_shard // stage.batch_size
    for use in range(config.uses_per_sample):
        orders = {}
        for place in places:
            seed = sample_seed(config.seed, 1 + stage_index, shard_index, use, place)
            generator = torch.Generator().manual_seed(seed)
            orders[place] = torch.randperm(num_rounds, generator=generator).tolist()
        for round_index in range(num_rounds):
            number = use * num_rounds + round_index
            if number < skip:
                continue
            pairs = []
            for column, place in enumerate(places):
                seed = sample_seed(config.seed, 2 + stage_index, shard_index, number, place)
                generator = torch.Generator().manual_seed(seed)
                index = orders[place][round_index] * len(places) + column
                pairs.append(_augment(shard, index, stage, generator))
            yield tuple(torch.stack(side) for side in zip(*pairs, strict=True))


def _augment(
    shard: Shard, index: int, stage: StageConfig, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    # Offsets keep the phase between the model's cells and the low-resolution pixels.
    top, left = (16 * _integer(MARGIN_PX // 16 + 1, generator) for _ in range(2))
    first = _integer(stage.frames_read - stage.frames_seen + 1, generator)
    flips = [dim for dim in (1, 2, 3) if _uniform(0, 1, generator) < 0.5]
    is_turned = _uniform(0, 1, generator) < 0.5
    pair = []
    for stack, unit in ((shard.resized, 1), (shard.truth, 255)):
        clip = stack[
            index,
            first : first + stage.frames_seen,
            :,
            top : top + stage.crop_px,
            left : left + stage.crop_px,
        ]
        clip = rearrange(clip, "t c h w -> c t h w").flip(flips)
        clip = clip.transpose(2, 3) if is_turned else clip
        pair.append(clip.float().div_(unit))
    return pair[0], pair[1]


def cut_context(resized: Tensor, stage: StageConfig, seed: int) -> tuple[Tensor, slice]:
    """What the model sees of a batch, and where in it the frames to restore are.

    Args:
        resized: `b 3 t h w` with all the context of the stage.
        stage: Says how much that is.
        seed: Decides whether a batch has less, as at the ends of a shot.
    """
    most = before = after = stage.context_frames
    generator = torch.Generator().manual_seed(seed)
    if _uniform(0, 1, generator) < SHARE_AT_ENDS:
        before, after = (_integer(most + 1, generator) for _ in range(2))
    seen = resized[:, :, most - before : resized.shape[2] - most + after]
    return seen.contiguous(), slice(before, before + stage.num_frames)


def steps_per_shard(config: TrainingConfig, stage: StageConfig) -> int:
    """Batches that `batches` yields from one shard."""
    return config.uses_per_sample * (config.samples_per_shard // stage.batch_size)


def load_footage(config: TrainingConfig, stage: StageConfig) -> Sources | ArchivedFootage:
    """What the samples of a stage are cut from.

    Raises:
        TrainingError: There is nothing usable, or drawn stills were asked for where they cannot be.
    """
    limits = {"min_side_px": stage.crop_px + MARGIN_PX, "min_frames": stage.frames_read}
    if config.drawn_stills:
        _check_drawn(config)
    if config.data_archives:
        archives = find_archives(config.data_archives)
        return ArchivedFootage(
            archives=archives, seed=config.seed, batch_size=stage.batch_size, **limits
        )
    sources = load_sources(config.data_dirs, **limits)
    if config.drawn_stills:
        sources.stills.extend(draw_stills(config.drawn_stills, sources.stills, config.seed))
    return sources


def _check_drawn(config: TrainingConfig) -> None:
    """Look at all stages at once, so that a run does not stop hours later."""
    need("PIL", extra="train", purpose="drawn_stills")
    if config.data_archives:
        raise TrainingError(
            "drawn_stills are added to those of data_dirs, and data_archives take their place; "
            "leave one of them out"
        )
    crop_px = max(stage.crop_px for stage in config.stages)
    if crop_px + MARGIN_PX > SIDE_PX:
        raise TrainingError(
            f"drawn_stills are {SIDE_PX} px wide, so crop_px must be at most "
            f"{SIDE_PX - MARGIN_PX}, got {crop_px}; leave drawn_stills out"
        )


class ShardStream(torch.utils.data.Dataset):
    """The shards of one stage by index, for a DataLoader whose processes make the next ones."""

    def __init__(
        self,
        config: TrainingConfig,
        stage_index: int,
        sources: Sources | ArchivedFootage,
        places: range | None = None,
    ) -> None:
        self.config, self.stage_index, self.sources = config, stage_index, sources
        self.places = places

    def __len__(self) -> int:
        stage = self.config.stages[self.stage_index]
        return -(-stage.num_steps // steps_per_shard(self.config, stage))

    def __getitem__(self, index: int) -> Shard:
        # One thread: the trainer needs the cores, and codec output depends on nothing else.
        torch.set_num_threads(1)
        torch.set_flush_denormal(True)
        return make_shard(self.config, self.stage_index, index, self.sources, self.places)

    def load(
        self, first: int, num_workers: int, device: torch.device | None = None
    ) -> Iterator[tuple[int, Shard]]:
        """The shards from `first` on, with their indices.

        Args:
            first: Index of the first shard.
            num_workers: Processes; they make the next shards while one is used.
            device: Degrades the samples, a shard at a time, and leaves the codecs only to the
                processes; None: everything is done in the processes.
        """
        indices = range(first, len(self))
        if device is not None:
            # Spawned: a forked process must not touch an accelerator that its parent uses.
            with ProcessPoolExecutor(num_workers, mp_context=get_context("spawn")) as pool:
                accelerator = Accelerator(device, pool)
                for index in indices:
                    yield (
                        index,
                        make_shard(
                            *(self.config, self.stage_index, index, self.sources),
                            *(self.places, accelerator),
                        ),
                    )
            return
        loader = DataLoader(
            self, batch_size=None, sampler=list(indices), num_workers=num_workers, prefetch_factor=1
        )
        yield from zip(indices, loader, strict=True)
