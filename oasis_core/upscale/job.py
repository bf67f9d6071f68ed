"""One run of `upscale_file`, once everything that can be checked beforehand is checked."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import torch

from ..digests import file_fingerprint, listing_fingerprint
from ..remote import RemoteFile, is_url, no_result
from ..version import __version__
from ..video import (
    ClipSource,
    EncodeSpec,
    ImageReader,
    TimeWindow,
    VideoError,
    VideoInfo,
    VideoReader,
    has_streams,
    list_images,
    open_source,
)
from .plan import Plan
from .segment import Look, StageClock
from .upscaler import VideoUpscaler


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What is to be done, and how."""

    source: Path | RemoteFile | ClipSource
    destination: Path
    info: VideoInfo
    look: Look
    spec: EncodeSpec
    upscaler: VideoUpscaler
    shots: bool
    requested: dict[str, Any]
    """Plan values that the user fixed."""
    overwrite: bool
    has_metadata: bool
    """Whether to write into the file how it was made."""
    clock: StageClock
    window: TimeWindow | None
    """The piece to do; None is everything."""
    deinterlace: bool
    frame_rate: Fraction | None
    """Of pictures, if the user chose one."""
    num_frames: int | None
    """Frames that will be done, if that can be told beforehand."""
    stores_light: bool = False
    """Whether segments hold amounts of light, as the bits of half-precision numbers."""
    on_segment: Callable[[int, int], None] | None = None
    """Called with the numbers of the shot and of the segment that is begun, from 0."""

    @property
    def images(self) -> list[Path] | None:
        """The pictures that are the source; None for a video."""
        return list_images(self.source)

    @property
    def has_streams(self) -> bool:
        """Whether the source is a file that may hold sound and other streams."""
        return has_streams(self.source)

    @property
    def beside(self) -> Path | RemoteFile | None:
        """The file whose sound and other streams go into the result, if there is one."""
        if isinstance(self.source, ClipSource):
            return self.source.sound
        return self.source if self.has_streams else None

    def open(self) -> VideoReader | ImageReader:
        """Open the source for reading what is to be done."""
        return open_source(
            self.source,
            window=self.window,
            deinterlace=self.deinterlace,
            frame_rate=self.frame_rate,
        )

    def identity(self) -> dict[str, dict[str, Any]]:
        """Everything that the bytes of a segment depend on, as JSON values."""
        images = self.images
        settings = {
            **asdict(self.look),
            "shots": self.shots,
            **self.requested,
            "device": self.upscaler.device.type,
            # A probe may decide otherwise next time: the plan keeps what it decided first.
            "dtype": self.upscaler.requested_dtype,
            "deinterlace": self.deinterlace,
            "start_s": None if self.window is None else self.window.start_s,
            "duration_s": None if self.window is None else self.window.duration_s,
        }
        return {
            "source": listing_fingerprint(images) if images else file_fingerprint(self.source),
            "setting": settings,
            "encoding": self.spec.to_json(),
            "model": {"name": self.upscaler.name, "hash": self.upscaler.model_hash},
            "version": {"oasis": __version__, "torch": torch.__version__, "av": av.__version__},
        }

    def facts(self, plan: Plan, num_shots: int) -> dict[str, Any]:
        """How the result is made: what depends on nothing but the job, so never on the clock."""
        identity = self.identity()
        names = ("tile", "overlap_px", "segment_frames", "halo_frames", "dtype")
        return {
            "oasis": identity["version"],
            "model": identity["model"],
            "source": f"{self.info.width}x{self.info.height}",
            "settings": identity["setting"],
            "encoding": identity["encoding"],
            "plan": {name: plan.to_json()[name] for name in names},
            "shots": num_shots,
        }


def output_path(name: str | Path) -> Path:
    """The path of a result.

    Raises:
        VideoError: It is a URL.
    """
    if is_url(name):
        raise VideoError(no_result(name))
    return Path(name)


def check_paths(
    source: Path | RemoteFile, destination: Path, *, makes_folder: bool = False
) -> None:
    """Refuse what cannot work before anything is read.

    Args:
        source: What the user named.
        destination: Likewise.
        makes_folder: Whether the destination's folder may be missing, since it will be made.

    Raises:
        VideoError: The source is missing or is the destination, or the folder is not writable.
    """
    if isinstance(source, RemoteFile):
        pass  # opening it says the same without asking twice
    elif not source.exists() and not list_images(source):
        raise VideoError(f"{str(source)!r} does not exist; check the name")
    refuse_own_input(destination, source)
    folder = destination.absolute().parent
    if not (makes_folder and not folder.exists()) and not os.access(folder, os.W_OK | os.X_OK):
        raise VideoError(
            f"the folder {str(destination.parent)!r} must be writable and is not; choose another"
        )


def refuse_own_input(destination: Path, *inputs: Path | RemoteFile) -> None:
    """Refuse an output that is one of the inputs, even where replacing is allowed.

    Raises:
        VideoError: It is.
    """
    for path in (path for path in inputs if isinstance(path, Path)):
        if destination.exists() and path.exists() and destination.samefile(path):
            raise VideoError(
                f"output {str(destination)!r} is the input itself; name another file, the input is "
                "never replaced"
            )


def exists_error(destination: Path) -> VideoError:
    """The sentence for an output that is there already."""
    return VideoError(
        f"{str(destination)!r} exists already; give --overwrite to replace it or another name"
    )
