"""Clips that tests make, and measures of what came out."""

from fractions import Fraction

import av
import numpy as np

WIDTH, HEIGHT, NUM_FRAMES, RATE = 64, 36, 10, Fraction(30000, 1001)


def write_clip(path, num_frames=NUM_FRAMES):
    """A small clip of moving waves with sound, at an uneven frame rate."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    with av.open(str(path), "w") as out:
        video = out.add_stream("libx264", rate=RATE, options={"crf": "10"})
        video.width, video.height, video.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        sound = out.add_stream("aac", rate=48000, layout="mono")
        for index in range(num_frames):
            gray = 128 + 60 * np.sin((x + 3 * index) * 0.2) + 40 * np.sin(y * 0.3)
            picture = np.stack((gray, gray * 0.8, gray * 0.6), axis=-1).astype(np.uint8)
            out.mux(video.encode(av.VideoFrame.from_ndarray(picture, "rgb24")))
        out.mux(video.encode(None))
        tone = np.sin(np.arange(int(48000 * num_frames / RATE)) * 0.06)[None].astype(np.float32)
        for start in range(0, tone.shape[1], 1024):
            block = av.AudioFrame.from_ndarray(tone[:, start : start + 1024], "fltp", "mono")
            block.sample_rate, block.pts = 48000, start
            out.mux(sound.encode(block))
        out.mux(sound.encode(None))


def frames_of(path):
    with av.open(str(path)) as video:
        return [frame.to_ndarray(format="rgb24") for frame in video.decode(video=0)]


def packets_of(path):
    """The encoded pictures."""
    with av.open(str(path)) as video:
        return [bytes(packet) for packet in video.demux(video=0) if packet.size]


def sound_of(path):
    """The encoded sound."""
    with av.open(str(path)) as video:
        return [bytes(packet) for packet in video.demux(audio=0) if packet.size]


def psnr_db(first, second):
    error = np.mean((first.astype(float) - second.astype(float)) ** 2)
    return 10 * np.log10(255**2 / error)


def resized(frame, width, height):
    picture = av.VideoFrame.from_ndarray(frame, "rgb24")
    return picture.reformat(width=width, height=height, interpolation="BICUBIC").to_ndarray()
