"""A tiny clip to work on, and everything about a finished file that must not change."""

from __future__ import annotations

import hashlib
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

NUM_FRAMES = 14


def write_clip(
    path: Path, *, num_frames: int = NUM_FRAMES, width: int = 32, height: int = 24
) -> Path:
    """Write a lossless clip with two shots, uneven times and a sound."""
    random = np.random.default_rng(0)
    with av.open(str(path), "w") as container:
        video = container.add_stream("ffv1", rate=25)
        video.width, video.height, video.pix_fmt = width, height, "bgr0"
        video.codec_context.time_base = Fraction(1, 50)
        audio = container.add_stream("pcm_s16le", rate=8000, layout="mono")
        container.metadata["title"] = "A tiny clip"
        for index in range(num_frames):
            if index in (0, 2 * num_frames // 3):
                base = np.kron(
                    random.integers(0, 256, (height // 4, width // 4, 3)), np.ones((4, 4, 1), int)
                )
            grain = random.integers(-9, 10, base.shape)
            pixels = np.clip(np.roll(base, index, axis=1) + grain, 0, 255).astype(np.uint8)
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = index * 2 + (index % 3 == 0), Fraction(1, 50)
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        tone = (np.sin(np.arange(8000 * num_frames // 25) / 9) * 9000).astype(np.int16)[None]
        sound = av.AudioFrame.from_ndarray(tone, format="s16", layout="mono")
        sound.sample_rate, sound.pts = 8000, 0
        container.mux(audio.encode(sound))
        container.mux(audio.encode(None))
    return path


def contents(path: Path) -> dict[str, Any]:
    """Decoded frames, times and packets of everything in a file, or the pictures of a folder."""
    if path.is_dir():
        files = sorted(file for file in path.iterdir() if file.is_file())
        return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}
    with av.open(str(path.absolute())) as container:
        found: dict[str, Any] = {
            "metadata": dict(container.metadata),
            "streams": [
                (s.type, s.codec_context.name if s.codec_context else "", dict(s.metadata))
                for s in container.streams
            ],
            "frames": [],
            "packets": [],
        }
        for packet in container.demux():
            if packet.size and packet.stream.type != "video":
                times = str((packet.pts or 0) * packet.time_base)
                digest = hashlib.sha256(bytes(packet)).hexdigest()
                found["packets"].append((packet.stream.index, times, digest))
            if packet.stream.type == "video":
                for frame in packet.decode():
                    found["frames"].append((str(frame.pts * frame.time_base), frame_hash(frame)))
    return found


def frame_hash(frame: av.VideoFrame) -> str:
    """Of the picture as it is coded: size, pixel format and every visible sample."""
    digest = hashlib.sha256(f"{frame.width}x{frame.height} {frame.format.name}".encode())
    for plane in frame.planes:
        rows = np.frombuffer(plane, np.uint8).reshape(plane.height, plane.line_size)
        if frame.format.is_planar:
            bytes_per_row = plane.width * (2 if frame.format.components[0].bits > 8 else 1)
        else:
            bytes_per_row = plane.width * frame.format.padded_bits_per_pixel // 8
        digest.update(np.ascontiguousarray(rows[:, :bytes_per_row]).tobytes())
    return digest.hexdigest()
