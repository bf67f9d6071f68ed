"""The model's configuration and its presets. Presets differ in numbers only."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, replace
from typing import Any

MAX_NAME_CHARS = 100
MAX_NUMBERS = {
    "num_layers": 1_000,
    "num_stem_blocks": 1_000,
    "num_decoder_blocks": 1_000,
    "stem_reach": 8,
}
MAX_NUMBER = 65_536
MAY_BE_ZERO = (
    "stem_channels",
    "stem_reach",
    "num_stem_blocks",
    "num_decoder_blocks",
    "num_context_keys",
    "text_channels",
    "timestep_channels",
    "vae_width",
    "tiny_width",
    "tiny_encoder_width",
    "chunk_latents",
    "visual_width",
    "first_chunk_latents",
    "kept_latents",
    "projector_width",
    "block_size",
    "local_range",
    "tiny_guide",
)
CHOICES = {
    "stem": ("unshuffle", "latent", "noise"),
    "decoder": ("conv", "wan", "tiny", "none"),
    "encoder": ("wan", "tiny"),
    "prediction": ("sample", "velocity"),
}
TINY_BOTH = "tiny-both"
"""TAEHV both ways, where a model reads a latent."""
VAE_STRIDE = (4, 8, 8)
"""Frames and pixels of one cell of the Wan2.1 latent."""
TRIPLES = ("stem_stride", "patch_size", "window_size", "block_size")
FRACTIONS = {"timestep": 1000, "sigma": 1, "sparse_ratio": 100}
"""Fields that need not be whole, and the most they may be."""


def _check_numbers(name: str, value: object) -> None:
    """Refuse a field whose numbers are of the wrong kind or beyond any sensible model."""
    if name == "name" or name in FRACTIONS:
        return
    if name in CHOICES:
        if value not in CHOICES[name]:
            raise ValueError(f"{name} must be one of {', '.join(CHOICES[name])}, got {value!r:.80}")
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
    stem_reach: int = 0
    """Frames before and after a frame that a convolutional stem sees with it, moved to where it is;
    needs a stem stride of (1, n, n) with an even n."""
    num_context_keys: int = 0
    """Distinct keys of the constant text context (0: no cross-attention)."""
    timestep: float = 1000.0
    """The one fixed denoising step t*, in [0, 1000]; folded into the modulation, unless
    `timestep_channels` says otherwise."""
    stem: str = "unshuffle"
    """What the transformer reads: "unshuffle", the video's own pixels space-to-depth; "latent", its
    Wan2.1 latent, so that the original patch embedding fits and the VAE encoder is needed; "noise",
    noise in the shape of that latent, to which a projector adds tokens of the video."""
    decoder: str = "conv"
    """What turns the prediction into pixels: "conv" (small, reads the stem's features), "wan"
    (Wan2.1 VAE decoder), "tiny" (TAEHV) or "none"."""
    prediction: str = "sample"
    """What a latent model's head predicts: "sample", the clean latent; "velocity", noise minus
    clean, which is taken from the input latent (so the stem must be "latent")."""
    text_channels: int = 0
    """Channels of a text embedding given at run time; 0: the context is stored or absent."""
    timestep_channels: int = 0
    """Size of the timestep's sinusoid, which then is embedded at run time; 0: folded."""
    vae_width: int = 0
    """Base width of the Wan2.1 VAE's parts (96 as published); 0: the model has none of them."""
    tiny_width: int = 0
    """Base width of the TAEHV decoder (64 as published); 0: the model has none."""
    encoder: str = "wan"
    """What makes the latent that a stem "latent" reads: "wan" (Wan2.1 VAE encoder) or "tiny"
    (TAEHV)."""
    tiny_encoder_width: int = 0
    """Width of the TAEHV encoder (64 as published); 0: the model has none."""
    sigma: float = 0.0
    """Share of noise at which a velocity is taken, in [0, 1]; 0: the timestep over 1000."""
    chunk_latents: int = 0
    """Latent frames that the transformer works on at once, seeing the keys and values of as many
    before them; 0: the whole clip."""
    visual_width: int = 0
    """Base width of the encoder of the first frame (192 as published), whose features are the
    context; 0: the model has none."""
    first_chunk_latents: int = 0
    """Latent frames of a clip's first chunk, which a clip has at least; 0: as the others."""
    kept_latents: int = 0
    """Latent frames before a chunk whose keys and values it sees; 0: those of one chunk."""
    projector_width: int = 0
    """Base width of what turns the video into tokens that are added to those of the noise (1024 as
    published); 0: the model has none."""
    block_size: tuple[int, int, int] = (0, 0, 0)
    """Tokens (t, h, w) of the blocks among which global heads choose; zeros: they see all."""
    local_range: int = 0
    """Blocks (rows and columns alike) around a block, itself included, among which it chooses."""
    sparse_ratio: float = 0.0
    """How many blocks are chosen: so many times those of a picture of 1280x768 px for each."""
    tiny_guide: int = 0
    """Frames of the video that the TAEHV decoder reads with each latent frame (4 as published, with
    further layers); 0: none."""

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
        for name, most in FRACTIONS.items():
            value = getattr(self, name)
            if not isinstance(value, int | float) or not 0 <= value <= most:
                raise ValueError(f"{name} must be in [0, {most}], got {value}")
        self._check_latent()

    def _check_latent(self) -> None:
        """Refuse parts that do not fit together."""
        reads_latent = self.reads_latent
        if (reads_latent or self.decoder in ("wan", "tiny")) and self.stem_stride != VAE_STRIDE:
            raise ValueError(
                f"stem_stride must be {VAE_STRIDE} with a Wan2.1 latent, got {self.stem_stride}"
            )
        if self.decoder == "conv" and (reads_latent or not self.stem_channels):
            raise ValueError(
                "the conv decoder needs a convolutional stem, got stem "
                f"{self.stem!r} with {self.stem_channels} channels; choose decoder wan or tiny"
            )
        needed = "tiny_encoder_width" if self.encoder == "tiny" else "vae_width"
        needed = "projector_width" if self.stem == "noise" else needed
        if reads_latent and (self.stem_channels or not getattr(self, needed)):
            raise ValueError(
                f"stem {self.stem} needs {needed} above 0 and stem_channels 0, got "
                f"{getattr(self, needed)} and {self.stem_channels}"
            )
        time, rows, columns = self.stem_stride
        if self.stem_reach and (not self.stem_channels or time > 1 or rows != columns or rows % 2):
            raise ValueError(
                "stem_reach needs a convolutional stem with a stride of (1, n, n) and an even n, "
                f"got {self.stem_channels} channels and stride {self.stem_stride}"
            )
        for decoder, name in (("wan", "vae_width"), ("tiny", "tiny_width")):
            if self.decoder == decoder and not getattr(self, name):
                raise ValueError(f"decoder {decoder} needs {name} above 0, got 0")
        if self.prediction == "velocity" and not reads_latent:
            raise ValueError(
                f"prediction velocity is relative to the input latent, got stem {self.stem!r}; "
                "use prediction sample"
            )
        if self.text_channels and self.num_context_keys:
            raise ValueError(
                "the context is either given (text_channels) or stored (num_context_keys), got "
                f"both: {self.text_channels} and {self.num_context_keys}"
            )

        self._check_streaming(reads_latent)
        self._check_blocks()

    def _check_streaming(self, reads_latent: bool) -> None:
        """Refuse chunks and a visual context that the other parts cannot serve."""
        if self.chunk_latents and (not reads_latent or self.chunk_latents % self.patch_size[0]):
            raise ValueError(
                "chunk_latents needs stem latent and whole patches of "
                f"{self.patch_size[0]} latent frames, got {self.chunk_latents}"
            )
        if self.visual_width and (not self.text_channels or self.visual_width % 32):
            raise ValueError(
                "visual_width must be a multiple of 32 and needs text_channels, got "
                f"{self.visual_width} and {self.text_channels}"
            )

    def _check_blocks(self) -> None:
        """Refuse blocks, and what only comes with noise, that the other parts cannot serve."""
        if self.projector_width and self.stem != "noise":
            raise ValueError(f"projector_width needs stem noise, got stem {self.stem!r}")
        if self.tiny_guide not in (0, VAE_STRIDE[0]):
            raise ValueError(f"tiny_guide must be 0 or {VAE_STRIDE[0]}, got {self.tiny_guide}")
        given = {any(self.block_size), bool(self.local_range), bool(self.sparse_ratio)}
        if given != {self.is_sparse}:
            raise ValueError(
                "block_size, local_range and sparse_ratio belong together, got "
                f"{self.block_size}, {self.local_range} and {self.sparse_ratio}"
            )
        step = self.patch_size[0] * self.block_size[0]
        lengths = (self.chunk_latents, self.first_chunk_latents, self.kept_latents)
        if self.is_sparse and (not self.chunk_latents or any(n % step for n in lengths)):
            raise ValueError(
                f"chunks of a model with blocks must be whole blocks of {step} latent frames, got "
                f"{lengths}"
            )

    @property
    def reads_latent(self) -> bool:
        """Whether the transformer reads what has the shape of a Wan2.1 latent."""
        return self.stem in ("latent", "noise")

    @property
    def is_sparse(self) -> bool:
        """Whether global heads choose among blocks."""
        return min(*self.block_size, self.sparse_ratio) > 0

    @property
    def clip_stride(self) -> tuple[int, int, int]:
        """(frames, rows, columns) to whose multiples clips are filled up: tokens, or blocks."""
        time, rows, columns = self.token_stride
        if not self.is_sparse:
            return time, rows, columns
        return time, rows * self.block_size[1], columns * self.block_size[2]

    @property
    def noise_share(self) -> float:
        """Share of noise in what the model reads, which a velocity is multiplied with."""
        return self.sigma or self.timestep / 1000

    @property
    def is_latent(self) -> bool:
        """Whether the model predicts Wan2.1 latents.

        Such models are large and follow Wan: norms, modulation and rotations in float32, weights
        held in the precision of the arithmetic, 4k+1 frames.
        """
        return self.decoder != "conv"

    @property
    def head_size(self) -> int:
        """Channels of one attention head."""
        return self.width // self.num_heads

    @property
    def token_stride(self) -> tuple[int, int, int]:
        """Size (t, h, w) of one token in video frames and pixels."""
        return tuple(s * p for s, p in zip(self.stem_stride, self.patch_size, strict=True))

    def with_decoder(self, name: str) -> ModelConfig:
        """This configuration with another decoder; "tiny-both" is TAEHV to encode with, too."""
        if name == TINY_BOTH:
            return replace(self, encoder="tiny", decoder="tiny")
        return replace(self, decoder=name)

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
    stem_reach=2,
    num_stem_blocks=5,
    num_decoder_blocks=5,
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
    decoder="wan",
    vae_width=96,
    tiny_width=64,
)

INFVSR = replace(
    OASIS_1_3B,
    name="infvsr",
    stem="latent",
    prediction="velocity",
    num_context_keys=0,
    text_channels=512,
    visual_width=192,
    timestep=400.0,
    sigma=0.59 / 1.472,
    chunk_latents=3,
    tiny_encoder_width=64,
)
"""InfVSR (Kai-Liu001/InfVSR @a5b9342, MIT). Its timestep is 399 in bfloat16, which is 400; the
nearest step of the schedule 5s / (1 + 4s), s in thousandths, is s = 0.118."""

FLASHVSR = replace(
    OASIS_1_3B,
    name="flashvsr-1.1",
    stem="noise",
    decoder="tiny",
    prediction="velocity",
    num_context_keys=512,
    chunk_latents=2,
    first_chunk_latents=6,
    kept_latents=6,
    projector_width=1024,
    block_size=(2, 8, 8),
    local_range=11,
    sparse_ratio=2.0,
    tiny_width=128,
    tiny_guide=4,
)
"""FlashVSR v1.1 (OpenImagingLab/FlashVSR, Apache-2.0): its constants as its scripts set them."""

PRESETS = {config.name: config for config in (OASIS_TINY, OASIS_1_3B, INFVSR, FLASHVSR)}
