"""How large the GPU report's measurements are: in full, and shrunken to try the report itself."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from ..config import FLASHVSR, INFVSR, OASIS_1_3B, ModelConfig
from ..model.attention_window import Grid
from .golden import DECODERS

GIB = 1 << 30
SHRUNKEN_PARTS = {"tiny_encoder_width": 4, "visual_width": 32, "projector_width": 4}
"""Widths of parts that some of the public models have."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportScale:
    """How large the measurements are."""

    config: ModelConfig
    """The model."""
    sizes: dict[str, tuple[int, int]]
    """Name -> (width, height) of what is restored; in the order of the names in `FULL`."""
    num_frames: int
    """Of each clip."""
    grids: tuple[Grid, ...]
    """Token grids of the attention bench."""
    budgets: tuple[int, ...]
    """Bytes of the GPUs whose memory is tried."""
    memory_sizes: tuple[tuple[int, int], tuple[int, int]]
    """(width, height) of source and result in these trials."""
    compiler: str
    """Backend of torch.compile."""
    golden_decoders: tuple[str, ...]
    """Whose pictures every precision and backend must agree on."""
    public: tuple[ModelConfig, ...]
    """Models whose trained weights are public, timed with random ones."""


FULL = ReportScale(
    config=OASIS_1_3B,
    sizes={"720p": (1280, 720), "1080p": (1920, 1088), "4K": (3840, 2160)},
    num_frames=33,
    grids=((9, 45, 80), (9, 68, 120), (9, 135, 240)),
    budgets=tuple(n * GIB for n in (6, 8, 12, 16, 24)),
    memory_sizes=((1920, 1080), (3840, 2160)),
    compiler="inductor",
    golden_decoders=DECODERS,
    public=(INFVSR, FLASHVSR),
)
SHORT = ReportScale(
    config=dataclasses.replace(
        OASIS_1_3B,
        name="oasis-1.3b-shrunken",
        width=48,
        num_layers=2,
        num_heads=3,
        ffn_width=64,
        vae_width=4,
        tiny_width=4,
    ),
    sizes={"720p": (64, 48), "1080p": (96, 64), "4K": (128, 96)},
    num_frames=5,
    grids=((3, 8, 10),),
    budgets=(GIB,),
    memory_sizes=((24, 16), (48, 32)),
    compiler="eager",
    golden_decoders=("tiny",),
    public=tuple(
        dataclasses.replace(
            config,
            width=48,
            num_layers=2,
            num_heads=3,
            ffn_width=64,
            vae_width=4,
            tiny_width=4,
            text_channels=min(config.text_channels, 12),
            num_context_keys=min(config.num_context_keys, 3),
            **{name: least for name, least in SHRUNKEN_PARTS.items() if getattr(config, name)},
        )
        for config in (INFVSR, FLASHVSR)
    ),
)
"""To try the report itself; its figures mean nothing."""
