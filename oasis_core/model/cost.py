"""What a model costs for a size and a routing: operations and least memory traffic, by stage.

Operations are two per multiply-add, as torch's FLOP counter has them, from the true number of
visible keys. Traffic is the least there can be: each layer reads its input and its weights and
writes its output once. Both are counted, not measured.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..config import VAE_STRIDE, ModelConfig
from ..geometry import round_up
from . import projector, tiny_decoder, tiny_encoder, visual, wan_vae
from .attention import attention_flops
from .chunks import chunk_spans, whole_chunks
from .motion import num_changes
from .sparse_attention import SparsePattern

Grid = tuple[int, int, int]
Counts = Sequence[tuple[int, int, int]]

VISUAL_STAGE = "visual encoder"
PROJECTOR_STAGE = "projector"
NUM_TEXT_ROWS = 512
"""Rows of a text given at run time."""


@dataclass(slots=True, kw_only=True)
class StageCost:
    """One stage of a model's forward pass."""

    name: str
    flops: int = 0
    num_bytes: int = 0
    """Least memory traffic in bytes."""

    def add_layer(
        self, inputs: int, outputs: int, positions: int, sample_bytes: int, *, taps: int = 1,
        positions_in: int | None = None,
    ) -> None:  # fmt: skip
        """Add a linear layer or convolution with `taps` kernel positions."""
        self.flops += 2 * taps * inputs * outputs * positions
        read = inputs * (positions if positions_in is None else positions_in)
        weights = taps * inputs * outputs
        self.num_bytes += sample_bytes * (read + outputs * positions + weights)

    def add_pass(self, channels: int, positions: int, sample_bytes: int) -> None:
        """Add an elementwise layer, like a norm and its activation: read and write."""
        self.num_bytes += 2 * channels * positions * sample_bytes


def uniform_counts(config: ModelConfig, counts: tuple[int, int, int]) -> Counts:
    """The same numbers of global, intra-frame and window heads in every layer.

    Raises:
        ValueError: They do not add up to the model's heads.
    """
    if len(counts) != 3 or min(counts) < 0 or sum(counts) != config.num_heads:
        raise ValueError(
            f"routing must be three numbers (global, intra-frame, window heads) that add up to "
            f"{config.num_heads}, got {tuple(counts)}"
        )
    return [tuple(counts)] * config.num_layers


def token_grid(config: ModelConfig, num_frames: int, height: int, width: int) -> Grid:
    """Tokens (t, h, w) of a clip padded to whole tokens, or to whole chunks and blocks."""
    t, h, w = config.token_stride
    height, width = padded_size(config, height, width)
    patch = config.patch_size[0]
    num_latents = whole_chunks(config, -(-num_frames // t) * patch)
    return num_latents // patch, height // h, width // w


def model_costs(
    config: ModelConfig,
    counts: Counts,
    *,
    num_frames: int,
    height: int,
    width: int,
    sample_bytes: int = 2,
    window: Grid | None = None,
) -> list[StageCost]:
    """Every stage of one forward pass over a clip.

    Args:
        config: The model.
        counts: Heads that are global, intra-frame and window, for each layer.
        num_frames: Frames of the clip.
        height: Rows of the clip in pixels.
        width: Columns.
        sample_bytes: Of the arithmetic: 2 or 4.
        window: Box (t, h, w) in tokens of the window heads, that of their routing; None for the
            model's own.

    Returns:
        Stages in their order; those a model has not are left out.
    """
    grid = token_grid(config, num_frames, height, width)
    stages = [*_stem_costs(config, grid, sample_bytes)]
    stages += _block_costs(config, counts, grid, sample_bytes, window or config.window_size)
    pixels = tuple(n * s for n, s in zip(grid, config.token_stride, strict=True))
    cells = tuple(n * p for n, p in zip(grid, config.patch_size, strict=True))
    if config.decoder == "conv":
        stages.append(_conv_decoder_cost(config, cells, sample_bytes))
    elif config.decoder == "wan":
        stages.append(wan_decoder_cost(config.vae_width, cells, sample_bytes))
    elif config.decoder == "tiny":
        stages.append(tiny_decoder_cost(config.tiny_width, cells, sample_bytes, config.tiny_guide))
    if config.visual_width:
        stages.insert(0, visual_cost(config.visual_width, config.text_channels, sample_bytes))
    if config.projector_width:
        stages.insert(0, projector_cost(config.projector_width, config.width, grid, sample_bytes))
    if config.stem == "latent" and config.encoder == "tiny":
        stages.insert(0, tiny_encoder_cost(config.tiny_encoder_width, pixels, sample_bytes))
    elif config.stem == "latent":
        size = (1 + VAE_STRIDE[0] * (grid[0] - 1), *pixels[1:])
        stages.insert(0, wan_encoder_cost(config.vae_width, size, sample_bytes))
    return stages


def transformer_flops(stages: Sequence[StageCost]) -> int:
    """Operations of all stages but encoders and decoders."""
    others = ("encoder", "decoder", VISUAL_STAGE, PROJECTOR_STAGE)
    return sum(stage.flops for stage in stages if stage.name not in others)


def chunk_grids(config: ModelConfig, grid: Grid) -> list[tuple[Grid, int]]:
    """Tokens (t, h, w) of each chunk that a model works on, and frames of keys before them."""
    patch = config.patch_size[0]
    kept = (config.kept_latents or config.chunk_latents) // patch
    spans = chunk_spans(config, grid[0] * patch)
    return [((-(-(b - a) // patch), *grid[1:]), min(a // patch, kept)) for a, b in spans]


def _stem_costs(config: ModelConfig, grid: Grid, sample_bytes: int) -> list[StageCost]:
    tokens = grid[0] * grid[1] * grid[2]
    patch = config.patch_size[0] * config.patch_size[1] * config.patch_size[2]
    cells, (t, h, w) = tokens * patch, config.stem_stride
    unshuffled = config.out_channels if config.reads_latent else 3 * t * h * w
    stem = StageCost(name="stem")
    if config.stem_channels:
        width = config.stem_channels
        stem.add_layer(unshuffled, width, cells, sample_bytes, taps=9)
        if config.stem_reach and grid[0] > 1:
            stem.add_layer(num_changes(config.stem_reach), width, cells, sample_bytes, taps=9)
        for _ in range(2 * config.num_stem_blocks):
            stem.add_layer(width, width, cells, sample_bytes, taps=9)
    inputs = (config.stem_channels or unshuffled) * patch
    stem.add_layer(inputs, config.width, tokens, sample_bytes)
    return [stem]


def _block_costs(
    config: ModelConfig, counts: Counts, grid: Grid, sample_bytes: int, window: Grid
) -> list[StageCost]:
    tokens, width, head = grid[0] * grid[1] * grid[2], config.width, config.head_size
    names = ("global attention", "intra-frame attention", "window attention")
    sparse = SparsePattern.of(config)
    projections, ffn, cross = (StageCost(name=n) for n in ("projections", "ffn", "cross-attention"))
    patterns = [StageCost(name=name) for name in names]
    for layer in counts:
        for _ in range(4):
            projections.add_layer(width, width, tokens, sample_bytes)
        projections.add_pass(width, tokens, sample_bytes)
        for kind, (stage, number) in enumerate(zip(patterns, layer, strict=True)):
            only = tuple(number if i == kind else 0 for i in range(3))
            stage.flops += sum(
                attention_flops(chunk, only, head, window, num_past, sparse)
                for chunk, num_past in chunk_grids(config, grid)
            )
            stage.num_bytes += 4 * number * head * tokens * sample_bytes
        ffn.add_layer(width, config.ffn_width, tokens, sample_bytes)
        ffn.add_layer(config.ffn_width, width, tokens, sample_bytes)
        ffn.add_pass(width, tokens, sample_bytes)
        if config.num_context_keys or config.text_channels:
            for _ in range(2):
                cross.add_layer(width, width, tokens, sample_bytes)
            num_keys = _num_context_keys(config)
            cross.flops += 4 * tokens * num_keys * width
            for _ in range(2 if config.text_channels else 0):
                cross.add_layer(width, width, num_keys, sample_bytes)
    if config.text_channels:
        cross.add_layer(config.text_channels, width, _num_context_keys(config), sample_bytes)
        cross.add_layer(width, width, _num_context_keys(config), sample_bytes)
    head_stage = StageCost(name="head")
    patch = config.patch_size[0] * config.patch_size[1] * config.patch_size[2]
    head_stage.add_layer(width, patch * config.out_channels, tokens, sample_bytes)
    return [x for x in (projections, *patterns, cross, ffn, head_stage) if x.flops]


def _num_context_keys(config: ModelConfig) -> int:
    if config.visual_width:
        return visual.NUM_TOKENS
    return config.num_context_keys or NUM_TEXT_ROWS


def visual_cost(width: int, out_channels: int, sample_bytes: int) -> StageCost:
    """The encoder of the first frame, whatever the size of the clip."""
    stage, side = StageCost(name=VISUAL_STAGE), visual.IMAGE_PX // visual.PATCH_PX
    stage.add_layer(3, width, side**2, sample_bytes, taps=visual.PATCH_PX**2)
    for index, depth in enumerate(visual.DEPTHS):
        channels, positions = width * 2**index, side**2
        for _ in range(depth):
            for outputs in (3 * channels, channels):
                stage.add_layer(channels, outputs, positions, sample_bytes)
            stage.add_layer(channels, visual.FFN_FACTOR * channels, positions, sample_bytes)
            stage.add_layer(visual.FFN_FACTOR * channels, channels, positions, sample_bytes)
            stage.flops += 4 * positions * min(visual.WINDOW, side) ** 2 * channels
        if index + 1 < len(visual.DEPTHS):
            side //= 2
            stage.add_layer(4 * channels, 2 * channels, side**2, sample_bytes)
    stage.add_layer(channels, out_channels, visual.NUM_TOKENS, sample_bytes)
    return stage


def projector_cost(width: int, out_channels: int, grid: Grid, sample_bytes: int) -> StageCost:
    """FlashVSR's projector for a grid of tokens, and the group before the first that makes none."""
    stage, (t, h, w) = StageCost(name=PROJECTOR_STAGE), grid
    first, second = (width * factor for factor in projector.FACTORS)
    pixels = 3 * projector.CELL_PX**2
    options = {"sample_bytes": sample_bytes, "taps": 36}
    groups = (t + 1) * h * w
    stage.add_layer(pixels, first, 2 * groups, positions_in=4 * groups, **options)
    stage.add_layer(first, second, t * h * w, positions_in=2 * groups, **options)
    stage.add_layer(second, out_channels, t * h * w, sample_bytes)
    return stage


def tiny_encoder_cost(width: int, pixels: Grid, sample_bytes: int) -> StageCost:
    """TAEHV's encoder over a clip of `pixels` (t, h, w), t filled up to fours."""
    stage, (t, h, w) = StageCost(name="encoder"), pixels
    stage.add_layer(3, width, t * h * w, sample_bytes, taps=9)
    for pooled in tiny_encoder.POOLED_FRAMES:
        t //= pooled
        stage.add_layer(pooled * width, width, t * h * w, sample_bytes)
        h, w = h // 2, w // 2
        stage.add_layer(width, width, t * h * w, sample_bytes, taps=9, positions_in=4 * t * h * w)
        for _ in range(3):
            stage.add_layer(2 * width, width, t * h * w, sample_bytes, taps=9)
            for _ in range(2):
                stage.add_layer(width, width, t * h * w, sample_bytes, taps=9)
    stage.add_layer(width, tiny_decoder.LATENT_CHANNELS, t * h * w, sample_bytes, taps=9)
    return stage


def _conv_decoder_cost(config: ModelConfig, cells: Grid, sample_bytes: int) -> StageCost:
    stage = StageCost(name="decoder")
    positions, width = cells[0] * cells[1] * cells[2], config.stem_channels
    for _ in range(2 * config.num_decoder_blocks):
        stage.add_layer(width, width, positions, sample_bytes, taps=9)
    stage.add_layer(width, 3 * config.stem_stride[1] ** 2, positions, sample_bytes, taps=9)
    return stage


def _residual(stage: StageCost, inputs: int, outputs: int, positions: int, size: int) -> None:
    for channels in (inputs, outputs):
        stage.add_pass(channels, positions, size)
        stage.add_layer(channels, outputs, positions, size, taps=27)
    if inputs != outputs:
        stage.add_layer(inputs, outputs, positions, size)
    stage.add_pass(outputs, positions, size)


def _vae_middle(stage: StageCost, channels: int, cells: Grid, size: int) -> None:
    frame, positions = cells[1] * cells[2], cells[0] * cells[1] * cells[2]
    for _ in range(2):
        _residual(stage, channels, channels, positions, size)
    stage.add_layer(channels, 3 * channels, positions, size)
    stage.add_layer(channels, channels, positions, size)
    stage.flops += 4 * cells[0] * frame**2 * channels
    stage.num_bytes += 4 * channels * positions * size


def wan_decoder_cost(width: int, cells: Grid, sample_bytes: int) -> StageCost:
    """The Wan2.1 VAE decoder over a latent of `cells` (t, h, w)."""
    stage, (t, h, w) = StageCost(name="decoder"), cells
    latent = wan_vae.LATENT_CHANNELS
    sizes = [width * factor for factor in (wan_vae.WIDTHS[-1], *reversed(wan_vae.WIDTHS))]
    stage.add_layer(latent, latent, t * h * w, sample_bytes)
    stage.add_layer(latent, sizes[0], t * h * w, sample_bytes, taps=27)
    _vae_middle(stage, sizes[0], cells, sample_bytes)
    for level, outputs in enumerate(sizes[1:]):
        inputs = sizes[level] // 2 if level else sizes[0]
        for block in range(wan_vae.NUM_DECODER_BLOCKS):
            _residual(stage, outputs if block else inputs, outputs, t * h * w, sample_bytes)
        if level < 2:
            stage.add_layer(outputs, 2 * outputs, (t - 1) * h * w, sample_bytes, taps=3)
            t = 2 * t - 1
        if level < 3:
            h, w = 2 * h, 2 * w
            stage.add_layer(
                outputs, outputs // 2, t * h * w, sample_bytes, taps=9, positions_in=t * h * w // 4
            )
    stage.add_pass(sizes[-1], t * h * w, sample_bytes)
    stage.add_layer(sizes[-1], 3, t * h * w, sample_bytes, taps=27)
    return stage


def wan_encoder_cost(width: int, pixels: Grid, sample_bytes: int) -> StageCost:
    """The Wan2.1 VAE encoder over a clip of `pixels` (t, h, w), t = 4k+1."""
    stage, (t, h, w) = StageCost(name="encoder"), pixels
    sizes = [width * factor for factor in (wan_vae.WIDTHS[0], *wan_vae.WIDTHS)]
    stage.add_layer(3, sizes[0], t * h * w, sample_bytes, taps=27)
    for level, outputs in enumerate(sizes[1:]):
        for block in range(wan_vae.NUM_ENCODER_BLOCKS):
            inputs = outputs if block else sizes[level]
            _residual(stage, inputs, outputs, t * h * w, sample_bytes)
        if level < 3:
            h, w = h // 2, w // 2
            stage.add_layer(
                outputs, outputs, t * h * w, sample_bytes, taps=9, positions_in=4 * t * h * w
            )
        if level in (1, 2):
            before, t = t, (t + 1) // 2
            stage.add_layer(
                outputs, outputs, (t - 1) * h * w, sample_bytes, taps=3,
                positions_in=before * h * w,
            )  # fmt: skip
    _vae_middle(stage, sizes[-1], (t, h, w), sample_bytes)
    stage.add_pass(sizes[-1], t * h * w, sample_bytes)
    moments = 2 * wan_vae.LATENT_CHANNELS
    stage.add_layer(sizes[-1], moments, t * h * w, sample_bytes, taps=27)
    stage.add_layer(moments, moments, t * h * w, sample_bytes)
    return stage


def tiny_decoder_cost(width: int, cells: Grid, sample_bytes: int, num_guides: int = 0) -> StageCost:
    """TAEHV's decoder over a latent of `cells` (t, h, w), the dropped frames included."""
    stage, (t, h, w) = StageCost(name="decoder"), cells
    sizes = [width * factor for factor in tiny_decoder.WIDTHS]
    inputs = tiny_decoder.LATENT_CHANNELS + 3 * tiny_decoder.CELL_PX**2 * num_guides
    stage.add_layer(inputs, sizes[0], t * h * w, sample_bytes, taps=9)
    if num_guides:
        stage.add_layer(sizes[0], sizes[0], t * h * w, sample_bytes, taps=9)
    for index, growth in enumerate(tiny_decoder.GROWTH):
        channels, positions = sizes[index], t * h * w
        for _ in range(3):
            stage.add_layer(2 * channels, channels, positions, sample_bytes, taps=9)
            for _ in range(2):
                stage.add_layer(channels, channels, positions, sample_bytes, taps=9)
        stage.add_layer(channels, channels * growth, positions, sample_bytes)
        t, h, w = t * growth, 2 * h, 2 * w
        stage.add_layer(
            channels, sizes[index + 1], t * h * w, sample_bytes, taps=9,
            positions_in=t * h * w // 4,
        )  # fmt: skip
    if num_guides:
        stage.add_layer(sizes[-1], sizes[-1], t * h * w, sample_bytes, taps=9)
    stage.add_layer(sizes[-1], 3, t * h * w, sample_bytes, taps=9)
    return stage


def padded_size(config: ModelConfig, height: int, width: int) -> tuple[int, int]:
    """Rows and columns in whole tokens, or blocks."""
    return round_up(height, config.clip_stride[1]), round_up(width, config.clip_stride[2])
