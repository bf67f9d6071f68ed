"""A drawn film through the whole engine: seconds that tell whether this machine computes right."""

from __future__ import annotations

import math
import tempfile
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

SCALE = 4
NUM_FRAMES, WIDTH, HEIGHT = 12, 384, 256
"""Of the drawn film, which is made smaller by `SCALE` and noisy, and enlarged again."""
RATE = 24
NOISE = 12.0
"""Standard deviation of the noise in the small film, of 255."""
LEAST_GAIN_DB = 2.0
"""Over the plain resize. On a processor oasis-tiny as it comes gains 3.0 dB on this film, and at
`detail` 0 4.1 in float32 and in bfloat16; numbers that a driver got wrong gain nothing."""
LEAST_AGREEMENT_DB = 40.0
"""Between a GPU and the processor, on the model's result."""
COMPARED_FRAMES = 3
HD_PX = 1280 * 720


@dataclass(frozen=True, slots=True, kw_only=True)
class SelfTest:
    """What the drawn film showed."""

    gain_db: float
    """How much nearer to the drawing the result is than the plain resize, in dB of PSNR."""
    agreement_db: float | None
    """How near the device's result is to the processor's, in dB; None on the processor."""
    seconds_per_720p: float
    """Of the model's work, scaled from the small film."""
    peak_bytes: int
    """Largest resident size of the process; 0 where the system does not say."""
    faults: tuple[str, ...]
    """What is wrong, one line each."""


def draw_film() -> np.ndarray:
    """Discs, bars and thin lines that move, on a slope of brightness.

    Returns:
        `t h w 3`, 8 bits.
    """
    rows, columns = np.mgrid[0:HEIGHT, 0:WIDTH].astype(np.float32)
    frames = []
    for index in range(NUM_FRAMES):
        shift = 2.0 * index
        slope = 90 + 60 * columns / WIDTH
        bars = 50 * (((columns + shift) // 12 + rows // 40) % 2)
        distance = np.hypot(columns - 110 - shift, rows - 120)
        disc = 110 * np.clip(46 - distance, 0, 1)
        line = 90 * np.clip(1.8 - np.abs(rows - 0.6 * columns + 20 - shift), 0, 1)
        grey = slope + bars * (rows > HEIGHT // 2) - disc + line
        frames.append(np.stack([grey, 0.8 * grey + 20, 0.6 * grey + 50], axis=-1))
    return np.clip(np.rint(np.stack(frames)), 0, 255).astype(np.uint8)


def degrade(film: np.ndarray) -> np.ndarray:
    """A film made smaller by averaging `SCALE` x `SCALE` pixels, and noisy; `t h w 3`, 8 bits."""
    t, h, w, c = film.shape
    blocks = film.reshape(t, h // SCALE, SCALE, w // SCALE, SCALE, c).astype(np.float32)
    small = blocks.mean(axis=(2, 4))
    noise = np.random.default_rng(0).normal(0, NOISE, small.shape)
    return np.clip(np.rint(small + noise), 0, 255).astype(np.uint8)


def run_self_test(upscaler: Any) -> SelfTest:
    """Enlarge the drawn film from file to file and look at what came out.

    Args:
        upscaler: A `VideoUpscaler`.
    """
    from ..upscale import upscale_file

    drawn = draw_film()
    small = degrade(drawn)
    with tempfile.TemporaryDirectory(prefix="oasis-doctor-") as folder:
        source, result = Path(folder) / "small.mkv", Path(folder) / "large.mkv"
        _write(source, small)
        report = upscale_file(source, result, upscaler=upscaler, scale=SCALE, codec="ffv1")
        enlarged, num_sounds = _read(result)
    faults = []
    if enlarged.shape != drawn.shape:
        wanted, got = ("x".join(map(str, x.shape)) for x in (drawn, enlarged))
        faults.append(f"the result's frames, rows, columns and channels are {got}, not {wanted}")
        gain_db = 0.0
    else:
        gain_db = _psnr_db(enlarged, drawn) - _psnr_db(_plain(small), drawn)
    if num_sounds != 1:
        faults.append("the sound was lost")
    if not faults and not gain_db >= LEAST_GAIN_DB:
        faults.append(
            f"the model is {gain_db:.1f} dB from the plain resize and should be above it by "
            f"{LEAST_GAIN_DB:g} dB or more: this device computes something else; try --device cpu"
        )
    agreement_db = None if upscaler.device.type == "cpu" else _agreement_db(upscaler, small)
    if agreement_db is not None and agreement_db < LEAST_AGREEMENT_DB:
        faults.append(
            f"{upscaler.device} is only {agreement_db:.0f} dB from the processor, "
            f"{LEAST_AGREEMENT_DB:g} needed; use --dtype float32 or --device cpu"
        )
    share = drawn.shape[0] * WIDTH * HEIGHT / HD_PX
    return SelfTest(
        gain_db=gain_db,
        agreement_db=agreement_db,
        seconds_per_720p=report.seconds["model"] / share,
        peak_bytes=report.peak_rss_bytes,
        faults=tuple(faults),
    )


def _plain(small: np.ndarray) -> np.ndarray:
    import torch

    from ..video.pixels import resize

    video = torch.from_numpy(small.copy()).permute(0, 3, 1, 2).float() / 255
    larger = torch.stack([resize(frame[None], HEIGHT, WIDTH) for frame in video])
    return (255 * larger).round().byte().permute(0, 2, 3, 1).numpy()


def _agreement_db(upscaler: Any, small: np.ndarray) -> float:
    import torch

    from .. import load
    from ..model.agreement import psnr_db

    clip = torch.from_numpy(small[:COMPARED_FRAMES].copy()).permute(3, 0, 1, 2).float()[None] / 255
    reference = load(device="cpu", dtype="float32").upscale(clip, scale=SCALE)
    return psnr_db(reference, upscaler.upscale(clip, scale=SCALE).float().cpu())


def _psnr_db(first: np.ndarray, second: np.ndarray) -> float:
    error = np.mean((first.astype(np.float64) - second) ** 2)
    return math.inf if error == 0 else 10 * math.log10(255**2 / error)


def _write(path: Path, film: np.ndarray) -> None:
    """A lossless film with a tone."""
    import av

    with av.open(str(path), "w") as container:
        picture = container.add_stream("ffv1", rate=RATE)
        picture.height, picture.width = film.shape[1:3]
        picture.pix_fmt = "bgr0"
        sound = container.add_stream("pcm_s16le", rate=8000, layout="mono")
        num_samples = 8000 * len(film) // RATE
        tone = 8000 * np.sin(2 * np.pi * 440 * np.arange(num_samples) / 8000)
        samples = av.AudioFrame.from_ndarray(
            tone.astype(np.int16)[None], format="s16", layout="mono"
        )
        samples.rate, samples.pts, samples.time_base = 8000, 0, Fraction(1, 8000)
        for pixels in film:
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            container.mux(picture.encode(frame))
        container.mux(picture.encode(None))
        container.mux(sound.encode(samples))
        container.mux(sound.encode(None))


def _read(path: Path) -> tuple[np.ndarray, int]:
    """Frames of a film, `t h w 3` in 8 bits, and its number of sound tracks."""
    import av

    with av.open(str(path)) as container:
        num_sounds = len(container.streams.audio)
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    return np.stack(frames), num_sounds
