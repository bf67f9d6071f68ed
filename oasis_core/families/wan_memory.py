"""How much memory a latent model works in, from a dry run without any data.

The model runs once on the meta device, where tensors have sizes and no contents, while the live
ones are added up. All parts scale with their tokens or cells: one size tells about every other.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable

import torch

from ..config import VAE_STRIDE, ModelConfig
from ..geometry import round_up
from ..model.cost import chunk_grids, padded_size, token_grid
from ..model.denoiser import OasisModel
from ..model.live_bytes import DEVICE_SHARE, SAFETY, LiveTensorBytes
from ..model.projector import stream_project
from ..model.visual import NUM_TOKENS
from ..model.wan_vae import CELL_PX, EXACT_HALO, WIDTHS
from ..model.weight_precision import hold_weights

DRY_FRAMES, DRY_HEIGHT, DRY_WIDTH = 33, 704, 1280
"""Large enough that what is done in pieces is in the dry run too."""
DRY_LATENTS = 3
DTYPES = {2: torch.bfloat16, 4: torch.float32}
SIZES = {"1280x720": (720, 1280), "1920x1080": (1080, 1920), "3840x2160": (2160, 3840)}
SMALL_GPU_BYTES = 8 << 30
TILE_STEP_PX = 16


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class MemoryRates:
    """Working memory of the parts of a latent model, weights not included, in bytes."""

    per_token: float
    """Of the transformer."""
    per_decoder_cell: float
    """Of the decoder, per cell of one latent frame; output not included."""
    per_entry_cell: float
    """Likewise, of the part of Wan's decoder that never works in tiles; 0 without one."""
    per_encoder_pixel: float
    """Of the encoder, or the projector, per pixel of one frame; 0 without one."""
    visual: float = 0.0
    """Of the encoder of the first frame, whatever the size; 0 without one."""


class MemoryModel:
    """Working memory of a latent model for any size.

    Args:
        config: The model.
        sample_bytes: Of its arithmetic: 2 or 4.
        decoder_tile: Side in pixels of the tiles that Wan's decoder works in, if it does.
    """

    def __init__(
        self, config: ModelConfig, sample_bytes: int, decoder_tile: int | None = None
    ) -> None:
        self.config = config
        self.sample_bytes = sample_bytes
        self.decoder_tile = decoder_tile
        self.rates = memory_rates(config, sample_bytes)

    def __call__(self, num_frames: int, height: int, width: int) -> int:
        """Bytes for a clip of `num_frames` of `height` x `width` pixels, weights not included."""
        grid = token_grid(self.config, num_frames, height, width)
        chunks = chunk_grids(self.config, grid)
        tokens = chunks[0][0][0] * grid[1] * grid[2]
        _, h, w = (n * p for n, p in zip(grid, self.config.patch_size, strict=True))
        video = 3 * self.sample_bytes * num_frames * height * width
        # Decoded residuals, and all of them once more when they are joined.
        decoder = self.rates.per_decoder_cell * h * w + 2 * video
        if self.decoder_tile and max(height, width) > self.decoder_tile:
            decoder = self._tiled_decoder(grid[0], h, w) + 3 * video
        transformer = self.rates.per_token * tokens
        if len(chunks) > 1:
            kept = max(num_past for _, num_past in chunks) * grid[1] * grid[2]
            transformer += self._kept_keys(kept) + 2 * self._latent_bytes(grid[0], h, w)
        if self.config.projector_width:
            added = self.config.width * grid[0] * grid[1] * grid[2] * self.sample_bytes
            transformer += added + self._latent_bytes(grid[0], h, w)
        if self.config.visual_width:
            transformer += self._kept_keys(NUM_TOKENS)
        parts = (
            transformer,
            decoder,
            self.rates.per_encoder_pixel * height * width,
            self.rates.visual,
        )
        return int(max(parts))

    def _kept_keys(self, tokens: int) -> int:
        """Bytes of the keys and values of tokens, in all blocks but the one that was measured."""
        return 2 * (self.config.num_layers - 1) * self.config.width * self.sample_bytes * tokens

    def _latent_bytes(self, num_latents: int, height: int, width: int) -> int:
        return self.config.out_channels * num_latents * height * width * self.sample_bytes

    def _tiled_decoder(self, num_latents: int, height: int, width: int) -> float:
        """Bytes of a decoder in tiles over `height` x `width` cells, output not included."""
        reach = self.decoder_tile // CELL_PX + 2 * EXACT_HALO
        grown = self.rates.per_decoder_cell * min(height, reach) * min(width, reach)
        features = self.sample_bytes * WIDTHS[-1] * self.config.vae_width * num_latents
        return features * height * width + max(self.rates.per_entry_cell * height * width, grown)


@functools.lru_cache(maxsize=8)
def memory_rates(config: ModelConfig, sample_bytes: int) -> MemoryRates:
    """Measure the parts of a model by a dry run of one block, one decoder and one encoder."""
    config = dataclasses.replace(config, num_layers=1)
    dtype = DTYPES[sample_bytes]
    with torch.device("meta"), torch.inference_mode():
        model = OasisModel(config).eval()
        hold_weights(model, dtype)
        height, width = (
            round_up(side, stride)
            for side, stride in zip((DRY_HEIGHT, DRY_WIDTH), config.clip_stride[1:], strict=True)
        )
        video = torch.empty(1, 3, DRY_FRAMES, height, width, dtype=dtype)
        source = video
        _, cell_h, cell_w = VAE_STRIDE
        guide = None
        if config.reads_latent:
            # Of a model that works in chunks two, so that one sees the keys of the other.
            first = config.first_chunk_latents or config.chunk_latents
            num_latents = first + config.chunk_latents or -(-DRY_FRAMES // 4)
            shape = (1, config.out_channels, num_latents, height // 8, width // 8)
            source = torch.empty(shape, dtype=dtype)
        context = model.context(video)
        if config.projector_width:
            guide = torch.empty(
                1, num_latents, height // 16, width // 16, config.width, dtype=dtype
            )
        transformer = _peak(lambda x: model.transformer(x, context=context, guide=guide), source)
        visual = 0 if context is None else _peak(model.context, video)
        latent = torch.empty(
            (1, config.out_channels, DRY_LATENTS, height // cell_h, width // cell_w), dtype=dtype
        )
        decoder = encoder = entry = 0
        if config.decoder != "none":
            out_bytes = 3 * (4 * DRY_LATENTS - 3) * height * width * sample_bytes
            decoder = _peak(lambda x: list(model.decode(x, video)), latent) - out_bytes
        if config.decoder == "wan":
            entry = _peak(lambda x: model.wan_decoder.enter(x, None), latent[:, :, :1])
        if config.stem == "latent":
            encoder = _peak(model.encode, video[:, :, : 4 * DRY_LATENTS - 3])
        if config.projector_width:
            encoder = _peak(lambda x: stream_project(model.projector, x, DRY_LATENTS), video)
    grid = token_grid(config, DRY_FRAMES, height, width)
    num_frames = config.first_chunk_latents or config.chunk_latents or grid[0]
    return MemoryRates(
        per_token=transformer / (num_frames * grid[1] * grid[2]),
        per_decoder_cell=max(0, decoder) / (height // cell_h * (width // cell_w)),
        per_entry_cell=entry / (height // cell_h * (width // cell_w)),
        per_encoder_pixel=encoder / (height * width),
        visual=visual,
    )


def _peak(function: Callable[[torch.Tensor], object], x: torch.Tensor) -> int:
    with LiveTensorBytes() as live:
        function(x)
    return live.peak


def weight_bytes(config: ModelConfig, sample_bytes: int) -> int:
    """Bytes of a latent model's weights with the decoder that it uses, and no other."""
    with torch.device("meta"):
        model = OasisModel(config)
    if config.decoder in ("wan", "tiny"):
        model.choose_decoder(config.decoder)
    return sample_bytes * sum(p.numel() for p in model.parameters())


def memory_needs(config: ModelConfig) -> dict[str, str]:
    """What a latent model needs in bfloat16 for 33 frames of usual sizes, in words.

    Args:
        config: The model.

    Returns:
        A line for the weights, one for each size, and one for a GPU of 8 GiB.
    """
    weights = weight_bytes(config, 2)
    model = MemoryModel(config, 2)
    needs = {"weights": f"{weights / 2**30:.2f} GiB"}
    for name, (height, width) in SIZES.items():
        height, width = padded_size(config, height, width)
        needs[name] = f"{(weights + model(DRY_FRAMES, height, width)) / 2**30:.1f} GiB untiled"
    budget = SMALL_GPU_BYTES * DEVICE_SHARE - weights
    step = max(TILE_STEP_PX, *config.clip_stride[1:])
    sides = range(step, 4096, step)
    fitting = [side for side in sides if SAFETY * model(DRY_FRAMES, side, side) <= budget]
    tile = f"tiles of {fitting[-1]}x{fitting[-1]} px" if fitting else "not enough"
    return needs | {"8 GiB": f"{tile}, any size"}
