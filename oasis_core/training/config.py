"""The training configuration, read from TOML."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import typing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..config import PRESETS as MODEL_PRESETS
from ..degradation import PRESETS as DEGRADATIONS
from ..degradation.recipe import CODECS, DegradationError, check_codecs
from ..extras import need
from ..remote import as_source, is_url

YARDSTICK = "yardstick"
FROM_INITIAL = "initial"
ENDS = FAITHFUL, VIVID = ("faithful", "vivid")
PIXEL_LOSSES = ("charbonnier", "root_mean_square", "log_mean_square")
PERCEPTUAL_NETWORKS = ("lpips", "lpips_vgg", "dists")
_FREE_FIELDS = (
    *("gradient_checkpointing", "data_workers", "validation_dirs", "validate_every"),
    *("validation_frames", "validation_px", "sample_every", "tensorboard", "sharded_state"),
)
_LATER_FIELDS = (
    *("yardstick_convs", "yardstick_features", "perceptual_network", "latent_encoder"),
    *("trained_end", "degrade_on_device", "codecs", "drawn_stills", "data_archives"),
)


class TrainingError(ValueError):
    """A training cannot start or go on; one sentence."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StageConfig:
    """One stage of the curriculum."""

    name: str
    """Shown in logs and stored with the weights."""
    num_steps: int
    """Optimiser steps."""
    learning_rate: float
    """Learning rate at the start, after the warm-up."""
    final_learning_rate: float
    """Learning rate at the end; a cosine lies between."""
    warmup_steps: int = 100
    """Steps over which the learning rate rises from zero."""
    batch_size: int = 4
    """Clips per step."""
    num_frames: int = 5
    """Frames per clip."""
    context_frames: int = 0
    """Further frames on each side of these that the model sees and the losses do not: what a frame
    inside a clip has around it, at the price of restoring `num_frames`. Of some clips fewer, as at
    the ends of a shot."""
    degraded_frames: int = 0
    """Frames degraded together, of which each use takes those that it needs; 0: just those. A codec
    treats frames differently, so a stage of single frames should see several coded."""
    crop_px: int = 128
    """Side of the training crop; a multiple of 32."""
    degradations: dict[str, float] = dataclasses.field(default_factory=lambda: {"consistent": 1.0})
    """Share of every degradation preset."""
    scales: dict[str, float] = dataclasses.field(default_factory=lambda: {"4": 1.0})
    """Share of every upscaling factor."""
    pixel_loss: str = "charbonnier"
    """"charbonnier"; "root_mean_square": what PSNR measures, per clip; or "log_mean_square": PSNR
    itself, so that clean clips count as much as bad ones."""
    charbonnier_epsilon: float = 1e-3
    """Difference below which the Charbonnier loss turns from absolute to squared, in (0, 1]."""
    temporal_weight: float = 0.0
    """Weight of the same loss on the change from frame to frame."""
    frequency_weight: float = 0.0
    """Weight of the difference of the spectra."""
    latent_weight: float = 0.0
    """Weight of the squared error in the VAE's latent; needs `latent_encoder`."""
    perceptual_weight: float = 0.0
    """Weight of `perceptual_network`'s distance."""
    adversarial_weight: float = 0.0
    """Weight of the adversarial loss of a small discriminator that is trained alongside."""
    cell_weight: float = 0.0
    """Weight of the error of means over cells, which holds colours and brightness."""
    grid_weight: float = 0.0
    """Weight of patterns that repeat from cell to cell."""
    flat_weight: float = 0.0
    """Weight of what is added to clips of one colour, drawn anew every step."""
    picture_weight: float = 0.0
    """Weight of a discriminator of frames that sees the input beside them."""
    change_weight: float = 0.0
    """Weight of a discriminator of changes from frame to frame; needs two frames."""
    feature_weight: float = 0.0
    """Weight of a discriminator of what the perceptual network sees; needs `perceptual_weight`
    with "lpips" or "lpips_vgg" from the folder that `OASIS_METRIC_WEIGHTS` names."""
    discriminator_rate: float = 1.0
    """Learning rate of the discriminator relative to the convolutions'."""
    skip_transformer: bool = False
    """Train the convolutions alone: they learn first, and at twice the speed."""
    transformer_rate: float = 0.5
    """Learning rate of the transformer relative to the convolutions'."""
    calibrate_window_heads: int = -1
    """At the start of the stage, calibrate and give this many heads of the whole network the
    window pattern (-1: keep the routing as it is)."""
    calibrate_intra_heads: int = 0
    """Heads that become intra-frame in the same calibration; the rest stays global."""

    @property
    def has_judges(self) -> bool:
        """Whether any of the three discriminators of `judges` is asked."""
        return bool(self.picture_weight or self.change_weight or self.feature_weight)

    @property
    def frames_seen(self) -> int:
        """Frames of a clip that the model sees at most."""
        return self.num_frames + 2 * self.context_frames

    @property
    def frames_read(self) -> int:
        """Frames of footage that a sample takes."""
        return max(self.frames_seen, self.degraded_frames)

    def __post_init__(self) -> None:
        if self.num_steps < 1 or self.batch_size < 1 or self.num_frames < 1:
            raise TrainingError(f"stage {self.name}: steps, batch and frames must be at least 1")
        if self.context_frames < 0:
            raise TrainingError(
                f"stage {self.name}: context_frames must be at least 0, got {self.context_frames}"
            )
        if self.pixel_loss not in PIXEL_LOSSES:
            raise TrainingError(
                f"stage {self.name}: pixel_loss must be one of {', '.join(PIXEL_LOSSES)}, got "
                f"{self.pixel_loss!r}"
            )
        if not 0 < self.charbonnier_epsilon <= 1:
            raise TrainingError(
                f"stage {self.name}: charbonnier_epsilon must be in (0, 1], got "
                f"{self.charbonnier_epsilon}"
            )
        if self.change_weight and self.num_frames < 2:
            raise TrainingError(
                f"stage {self.name}: change_weight needs num_frames of at least 2, got "
                f"{self.num_frames}"
            )
        if self.feature_weight and not self.perceptual_weight:
            raise TrainingError(
                f"stage {self.name}: feature_weight judges what perceptual_weight computes, which "
                "is 0; give both"
            )
        for field in dataclasses.fields(self):
            if field.name.endswith("_weight") and getattr(self, field.name) < 0:
                raise TrainingError(f"stage {self.name}: {field.name} must be at least 0")
        if self.crop_px < 32 or self.crop_px % 32:
            raise TrainingError(
                f"stage {self.name}: crop_px must be a multiple of 32, got {self.crop_px}"
            )
        if unknown := sorted(set(self.degradations) - set(DEGRADATIONS)):
            raise TrainingError(f"stage {self.name}: unknown degradation {unknown[0]!r}")
        for share in (self.degradations, self.scales):
            if not share or min(share.values()) < 0 or sum(share.values()) <= 0:
                raise TrainingError(f"stage {self.name}: shares must be positive, got {share}")


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingConfig:
    """A whole training run."""

    model: str
    """Preset from `oasis_core.config`; "initial": the architecture of `initial_model`; or
    "yardstick": a plain single-frame conv net."""
    data_dirs: tuple[str, ...]
    """Folders with clips and stills, searched recursively."""
    output_dir: str
    """Where checkpoints, state and logs go."""
    stages: tuple[StageConfig, ...]
    """The curriculum, in order."""
    initial_model: str = ""
    """Bundled model or checkpoint to start from, with its routing; empty: start from scratch."""
    seed: int = 0
    """Seed of initialisation, data and augmentation."""
    matrix_rate: float = 3.5
    """Muon's learning rate (weight matrices) relative to AdamW's (everything else)."""
    ema_decay: float = 0.999
    """Decay of the weight average that is saved and measured."""
    weight_decay: float = 0.0
    """AdamW weight decay."""
    grad_clip: float = 1.0
    """Largest gradient norm."""
    still_share: float = 0.5
    """Share of samples made from stills by synthetic camera motion."""
    drawn_stills: int = 0
    """Stills with text, bars and shapes to draw and add to those of `data_dirs`."""
    samples_per_shard: int = 256
    """Samples degraded at once."""
    uses_per_sample: int = 4
    """Times a degraded sample is used, each time with another crop, flip and order."""
    autocast_bf16: bool = True
    """Run the network in bfloat16 where that is safe; weights stay float32."""
    save_every: int = 250
    """Steps between saved states."""
    yardstick_convs: int = 20
    """Inner convolutions of the model "yardstick"."""
    yardstick_features: int = 64
    """Channels of the model "yardstick"."""
    perceptual_network: str = "lpips"
    """Network of the perceptual loss: "lpips", "lpips_vgg" or "dists"; its weights are on disk."""
    latent_encoder: str = ""
    """Checkpoint with a VAE encoder, which makes the targets of the latent loss."""
    gradient_checkpointing: bool = False
    """Compute the transformer's activations twice in place of keeping them."""
    data_workers: int = 1
    """Processes that decode, degrade and compress samples."""
    codecs: tuple[str, ...] = CODECS
    """Video encoders of the degradations: libx264, mpeg4, libx265, libvpx-vp9; one named twice is
    twice as likely."""
    degrade_on_device: bool = False
    """Degrade on the accelerator, a shard at a time; only the codecs run in the processes."""
    validation_dirs: tuple[str, ...] = ()
    """Folders with clips that the gain over the bicubic resize is measured on."""
    validate_every: int = 0
    """Steps between these measurements; 0: never."""
    validation_frames: int = 7
    """Frames of each validation clip."""
    validation_px: int = 256
    """Side of the middle square of each validation clip; a multiple of 32."""
    sample_every: int = 0
    """Steps between pictures of input, output and truth; 0: never."""
    tensorboard: bool = False
    """Log for TensorBoard too, besides log.csv."""
    data_archives: tuple[str, ...] = ()
    """In place of data_dirs: WebDataset archives of clips and stills, paths or URLs, such as
    "s3://bucket/clips-{000..099}.tar"."""
    sharded_state: bool = False
    """Write the state in parts, each process its share, all at the same time."""
    trained_end: str = "faithful"
    """"faithful": the weights are a model of one end; "vivid": those of `initial_model` stay the
    faithful end of the file, and the convolutions that are trained become its vivid one."""
    licence: str = "Apache-2.0"
    """Licence of the weights, stored with them."""
    data_note: str = ""
    """Where the data comes from and under which licences, stored with the weights."""

    def __post_init__(self) -> None:
        models = (*MODEL_PRESETS, FROM_INITIAL, YARDSTICK)
        if self.model not in models:
            raise TrainingError(f"model must be one of {', '.join(models)}, got {self.model!r}")
        if self.trained_end not in ENDS:
            raise TrainingError(
                f"trained_end must be one of {', '.join(ENDS)}, got {self.trained_end!r}"
            )
        if self.trained_end == VIVID and not self.initial_model:
            raise TrainingError('trained_end = "vivid" needs initial_model, its faithful end')
        if self.trained_end == VIVID and not all(stage.skip_transformer for stage in self.stages):
            raise TrainingError(
                'trained_end = "vivid" needs skip_transformer in every stage: the transformer is '
                "the same at both ends"
            )
        if self.model == FROM_INITIAL and not self.initial_model:
            raise TrainingError('model = "initial" needs initial_model, a checkpoint')
        self._check_ranges()
        if not self.stages:
            raise TrainingError("a training needs at least one [[stages]] table")
        if not 0 <= self.ema_decay < 1:
            raise TrainingError(f"ema_decay must be in [0, 1), got {self.ema_decay}")

    def _check_ranges(self) -> None:
        least = {"data_workers": 1, "samples_per_shard": 1, "uses_per_sample": 1, "save_every": 1}
        least |= {"validation_frames": 1, "validate_every": 0, "sample_every": 0, "drawn_stills": 0}
        least |= {"yardstick_convs": 1, "yardstick_features": 1}
        for name, bound in least.items():
            if getattr(self, name) < bound:
                raise TrainingError(f"{name} must be at least {bound}, got {getattr(self, name)}")
        if self.validation_px < 32 or self.validation_px % 32:
            raise TrainingError(f"validation_px must be a multiple of 32, got {self.validation_px}")
        if self.perceptual_network not in PERCEPTUAL_NETWORKS:
            raise TrainingError(
                f"perceptual_network must be one of {', '.join(PERCEPTUAL_NETWORKS)}, got "
                f"{self.perceptual_network!r}"
            )
        try:
            check_codecs(self.codecs)
        except DegradationError as error:
            raise TrainingError(str(error)) from error
        for stage in self.stages:
            if stage.batch_size > self.samples_per_shard:
                raise TrainingError(
                    f"stage {stage.name}: batch_size must be at most samples_per_shard "
                    f"({self.samples_per_shard}), got {stage.batch_size}"
                )
            if stage.latent_weight and not self.latent_encoder:
                raise TrainingError(
                    f"stage {stage.name}: latent_weight needs latent_encoder, a checkpoint with a "
                    "VAE encoder"
                )
        if (self.validate_every or self.sample_every) and not self.validation_dirs:
            raise TrainingError("validate_every and sample_every need validation_dirs")

    def to_json(self) -> dict[str, Any]:
        """The configuration as plain JSON values, without signatures and passwords of URLs."""
        archives = [str(as_source(a)) if is_url(a) else a for a in self.data_archives]
        return dataclasses.asdict(self) | {"data_archives": tuple(archives)}

    def fingerprint(self) -> str:
        """A hash of all that must stay the same for a run to go on to the same weights.

        What may change between runs is the future (later stages, how often things are saved and
        measured) and how fast they are computed.
        """
        values = self.to_json()
        for field in dataclasses.fields(self):
            if field.name in _LATER_FIELDS and values[field.name] == field.default:
                # States of versions that had no such field stay usable.
                del values[field.name]
        fixed = {key: value for key, value in values.items() if key not in _FREE_FIELDS}
        fixed |= {"stages": None, "save_every": None, "output_dir": None}
        return hashlib.sha256(json.dumps(fixed, sort_keys=True).encode()).hexdigest()


def _build(cls: type, values: dict[str, Any], where: str) -> Any:
    hints = typing.get_type_hints(cls)
    if unknown := sorted(set(values) - set(hints)):
        raise TrainingError(f"{where}: unknown key {unknown[0]!r}")
    for key, value in values.items():
        kind = typing.get_origin(hints[key]) or hints[key]
        accepted = {float: (float, int), tuple: (tuple, list)}.get(kind, kind)
        if not isinstance(value, accepted) or (kind is not bool and isinstance(value, bool)):
            raise TrainingError(f"{where}: {key} must be {kind.__name__}, got {value!r}")
    try:
        is_tuple = {key for key, hint in hints.items() if typing.get_origin(hint) is tuple}
        return cls(**{k: tuple(v) if k in is_tuple else v for k, v in values.items()})
    except TypeError as error:
        raise TrainingError(f"{where}: {error}") from error


def load_training_config(path: Path) -> TrainingConfig:
    """Read and check a TOML file.

    Raises:
        TrainingError: The file is missing, no TOML, or holds a wrong key or value.
    """
    try:
        import tomllib
    except ImportError:  # Python 3.10
        tomllib = need("tomli", extra="train", purpose="reading TOML on Python 3.10")
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:  # not UTF-8, not TOML, or too deep
        raise TrainingError(f"training config {path} cannot be read: {error}") from error
    stages = values.pop("stages", [])
    if not isinstance(stages, list) or not all(isinstance(stage, dict) for stage in stages):
        raise TrainingError(f"training config {path}: stages must be [[stages]] tables")
    values["stages"] = tuple(
        _build(StageConfig, stage, f"training config {path}, stage {number}")
        for number, stage in enumerate(stages, start=1)
    )
    values.setdefault("data_dirs", ())
    return _build(TrainingConfig, values, f"training config {path}")
