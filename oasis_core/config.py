"""The model's configuration and its presets. Presets differ in numbers only."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

MAX_NAME_CHARS = 100
MAX_NUMBERS = {"num_layers": 1_000, "num_stem_blocks": 1_000, "num_decoder_blocks": 1_000}
MAX_NUMBER = 65_536
MAY_BE_ZERO = ("stem_channels", "num_stem_blocks", "num_decoder_blocks", "num_context_keys")
TRIPLES = ("stem_stride", "patch_size", "window_size")


def _check_numbers(name: str, value: object) -> None:
    """Refuse a field whose numbers are of the wrong kind or beyond any sensible model."""
    if name in ("name", "timestep"):
        return
    numbers = value if name in TRIPLES else (value,)
    if not isinstance(numbers, tuple) or len(numbers) != (3 if name in TRIPLES else 1):
        raise ValueError(f"{name} must be three numbers, got {value!r:.80}")
    least, most = int(name not in MAY_BE_ZERO), MAX_NUMBERS.get(name, MAX_NUMBER)
    if not all(type(number) is int and least <= number <= most for number in numbers):
        raise ValueError(f"{name} must be whole and in [{least}, {most}], got {value!r:.80}")


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelConfig:
    """Everything that describes an OASIS network; nothing about it is decided elsewhere.

    Source: OASIS, arXiv 2509.23980; the large preset's numbers are those of Wan2.1-T2V-1.3B.
    """

    name: str
    """Preset or checkpoint name, shown to the user."""
    stem_stride: tuple[int, int, int]
    """Space-to-depth factors (t, h, w) of the stem, in frames and pixels."""
    stem_channels: int
    """Width of the convolutional stem and decoder; 0: tokens come from the unshuffled pixels."""
    num_stem_blocks: int
    """Residual convolution blocks before the transformer."""
    num_decoder_blocks: int
    """Residual convolution blocks after the transformer."""
    patch_size: tuple[int, int, int]
    """Token size (t, h, w) in stem cells."""
    width: int
    """Model width d."""
    num_layers: int
    """Transformer blocks."""
    num_heads: int
    """Attention heads k; the head size is width / num_heads."""
    ffn_width: int
    """Hidden width of the feed-forward network."""
    out_channels: int
    """Channels of the latent that the head predicts per stem cell."""
    window_size: tuple[int, int, int] = (3, 5, 5)
    """Attention window (t, h, w) in tokens: odd, centred on the query, clipped at the borders."""
    num_context_keys: int = 0
    """Distinct keys of the constant text context (0: no cross-attention)."""
    timestep: float = 1000.0
    """The one fixed denoising step t*, in [0, 1000]; already folded into the modulation."""

    def __post_init__(self) -> None:
        # A configuration comes from files too, so nothing about it is taken for granted.
        for field in dataclasses.fields(self):
            _check_numbers(field.name, getattr(self, field.name))
        if not isinstance(self.name, str) or not 1 <= len(self.name) <= MAX_NAME_CHARS:
            raise ValueError(f"name must be text of up to {MAX_NAME_CHARS} characters")
        if self.width % self.num_heads:
            raise ValueError(
                f"width must be divisible by num_heads, got {self.width} and {self.num_heads}"
            )
        if self.head_size % 2:
            raise ValueError(f"width / num_heads must be even for RoPE, got {self.head_size}")
        if any(size < 1 or size % 2 == 0 for size in self.window_size):
            raise ValueError(f"window_size must be odd on every axis, got {self.window_size}")
        if not isinstance(self.timestep, int | float) or not 0 <= self.timestep <= 1000:
            raise ValueError(f"timestep must be in [0, 1000], got {self.timestep}")

    @property
    def head_size(self) -> int:
        """Channels of one attention head."""
        return self.width // self.num_heads

    @property
    def token_stride(self) -> tuple[int, int, int]:
        """Size (t, h, w) of one token in video frames and pixels."""
        return tuple(s * p for s, p in zip(self.stem_stride, self.patch_size, strict=True))

    def to_json(self) -> dict[str, Any]:
        """The configuration as plain JSON values."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> ModelConfig:
        """Build a configuration from `to_json`'s values.

        Raises:
            ValueError: A key is missing or unknown, or a value is out of range.
        """
        known = {field.name for field in dataclasses.fields(cls)}
        if unknown := sorted(set(values) - known):
            raise ValueError(f"unknown model config key(s) {', '.join(unknown)}")
        try:
            return cls(**{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()})
        except TypeError as error:
            raise ValueError(f"incomplete model config: {error}") from error


OASIS_TINY = ModelConfig(
    name="oasis-tiny",
    stem_stride=(1, 4, 4),
    stem_channels=48,
    num_stem_blocks=3,
    num_decoder_blocks=3,
    patch_size=(1, 4, 4),
    width=192,
    num_layers=3,
    num_heads=6,
    ffn_width=384,
    out_channels=48,
)

OASIS_1_3B = ModelConfig(
    name="oasis-1.3b",
    stem_stride=(4, 8, 8),
    stem_channels=0,
    num_stem_blocks=0,
    num_decoder_blocks=0,
    patch_size=(1, 2, 2),
    width=1536,
    num_layers=30,
    num_heads=12,
    ffn_width=8960,
    out_channels=16,
    num_context_keys=2,
)

PRESETS = {config.name: config for config in (OASIS_TINY, OASIS_1_3B)}
