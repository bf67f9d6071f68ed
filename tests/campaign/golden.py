"""Stored outputs of the bundled model: pixels change only together with a line in CHANGELOG.md.

The file is made anew by `python -m tests.campaign --write-golden`, which refuses while the newest
release in CHANGELOG.md does not say that output changes.
"""

from __future__ import annotations

import base64
import hashlib
import json
import zlib
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch

import oasis_core
from oasis_core.checkpoint import BUNDLED
from oasis_core.digests import file_sha256
from oasis_core.video.pixels import tensor_to_frame

from .child import run_in_child
from .tally import Campaign

FILE = Path(__file__).with_name("golden.json")
ROOT = Path(__file__).resolve().parents[2]
CLIP = ROOT / "workflows" / "example_inputs" / "hand_held.mp4"
CASES = {
    "whole": {"scale": 4.0},
    "tiles and segments": {"scale": 4.0, "tile_px": 64, "segment_frames": 2},
    "odd size": {"size": (77, 53)},
    "no anchor, half strength": {"scale": 3.0, "color_anchor": False, "strength": 0.5},
}
"""Name -> options of `VideoUpscaler.upscale`."""
BACKENDS = (("cpu", "float32", 52.0), ("cpu", "bfloat16", 40.0), ("cuda", "float32", 45.0))
"""Device, arithmetic, and least agreement in dB with the stored pixels on another machine."""
_CHANGES = "changes output: yes"


def golden(campaign: Campaign) -> None:
    """Compare with the stored pixels, on every backend of this machine."""
    with campaign.fault("golden outputs of the bundled model") as (fault, _):
        stored = json.loads(FILE.read_text(encoding="utf-8")) if FILE.exists() else {}
        if stored.get("model") != file_sha256(BUNDLED["oasis-tiny"]):
            fault.count(
                "the bundled model is not the one of tests/campaign/golden.json; run "
                "python -m tests.campaign --write-golden"
            )
            return
        title = f"## {stored.get('release')}"
        if title not in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"):
            fault.count(f"golden.json belongs to the release {title!r}, which CHANGELOG.md lacks")
        elif newest_release().startswith(stored["release"]) and not says_so():
            fault.count(f"CHANGELOG.md must say {_CHANGES!r} in the release that golden.json names")
        exact = 0
        for device, dtype, least_db in BACKENDS:
            if device == "cuda" and not torch.cuda.is_available():
                continue
            outcome = run_in_child(lambda device=device, dtype=dtype: _packed(device, dtype))
            for name, values in (outcome.value or {}).items():
                exact += values["sha256"] in stored["hashes"].values()
                psnr_db = agreement_db(_unpack(values), _unpack(stored["cases"][name]))
                problem = None if psnr_db >= least_db else f"{psnr_db:.1f} dB, not {least_db:.0f}"
                fault.count(problem and f"{name}, {device} {dtype}: agrees to {problem}")
            if outcome.kind != "done":
                fault.count(f"{device} {dtype}: {outcome.kind} {outcome.text}")
        fault.note = f"{exact} of {fault.tried} the same to the last bit"


def write_golden() -> str:
    """Store what this version gives.

    Raises:
        ValueError: The changelog does not say that output changes.
    """
    if FILE.exists() and not says_so():
        raise ValueError(
            f"CHANGELOG.md must say {_CHANGES!r} in its newest release before stored outputs are "
            "replaced; add the line or undo what changes them"
        )
    cases = _packed("cpu", "float32")
    hashes = {f"cpu float32 {name}": values["sha256"] for name, values in cases.items()}
    other = _packed("cpu", "bfloat16")
    hashes |= {f"cpu bfloat16 {name}": values["sha256"] for name, values in other.items()}
    content = {
        "release": newest_release().split()[0],
        "model": file_sha256(BUNDLED["oasis-tiny"]),
        "torch": torch.__version__,
        "hashes": hashes,
        "cases": cases,
    }
    FILE.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    return f"{FILE.name}: {len(cases)} cases, {FILE.stat().st_size} bytes"


def newest_release() -> str:
    """The text of the changelog's first release."""
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    return text.split("\n## ")[1] if "\n## " in text else ""


def says_so() -> bool:
    """Whether the newest release says that output changes."""
    return _CHANGES in newest_release().lower()


def agreement_db(pixels: np.ndarray, other: np.ndarray) -> float:
    """PSNR between two clips of 8-bit pixels; -1 if their shapes differ."""
    if pixels.shape != other.shape:
        return -1.0
    error = np.square(pixels.astype(np.float64) - other).mean()
    return float(10 * np.log10(255**2 / max(error, 1e-6)))


def _source() -> torch.Tensor:
    """A piece of the bundled clip as `1 3 t h w`."""
    frames = []
    with av.open(str(CLIP)) as container:
        container.streams.video[0].codec_context.thread_count = 1
        for frame in container.decode(video=0):
            y, u, v = (
                np.frombuffer(p, np.uint8).reshape(p.height, p.line_size) for p in frame.planes
            )
            # Brightness and colour planes as they are: no converter whose rounding may change.
            piece = np.stack([y[60:84, 100:132], u[30:54, 50:82], v[30:54, 50:82]])
            frames.append(torch.from_numpy(piece.astype(np.float32) / 255))
            if len(frames) == 3:
                break
    return torch.stack(frames, dim=1)[None]


def _packed(device: str, dtype: str) -> dict[str, Any]:
    upscaler = oasis_core.load("oasis-tiny", device=device, dtype=dtype)
    video, found = _source(), {}
    for name, options in CASES.items():
        result = upscaler.upscale(video, **options)[0]
        pixels = np.stack([tensor_to_frame(frame.clone(), np.uint8) for frame in result.unbind(1)])
        digest = hashlib.sha256(pixels.tobytes()).hexdigest()
        # Of all frames the hash, of the one in the middle the pixels: the file stays small.
        middle = pixels[len(pixels) // 2]
        packed = base64.b64encode(zlib.compress(middle.tobytes(), 9)).decode()
        found[name] = {"shape": middle.shape, "sha256": digest, "pixels": packed}
    return found


def _unpack(values: dict[str, Any]) -> np.ndarray:
    data = zlib.decompress(base64.b64decode(values["pixels"]))
    return np.frombuffer(data, np.uint8).reshape(values["shape"])
