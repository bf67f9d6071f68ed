"""One run of `upscale_file`, once everything that can be checked beforehand is checked."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import av

from ..options import UpscaleOptions
from ..remote import is_url, no_result
from ..version import __version__
from ..video import (
    EncodeSpec,
    ImageReader,
    Source,
    TimeWindow,
    VideoError,
    VideoInfo,
    VideoReader,
)
from ..video.animated import AnimationReader
from .look import Look, StageClock

if TYPE_CHECKING:
    from .plan import Plan
    from .upscaler import VideoUpscaler


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What is to be done, and how."""

    source: Source
    """What is read, resolved."""
    destination: Path
    """File, pattern or folder to write, as the user named it."""
    info: VideoInfo
    """Facts of the source."""
    look: Look
    """Size of the result, and what the model's work becomes in it."""
    spec: EncodeSpec
    """How the journal's segments are encoded; of a video the result, too."""
    upscaler: VideoUpscaler
    """Model, device and arithmetic; a cluster's workers put their own here."""
    options: UpscaleOptions
    """What the user asked for."""
    clock: StageClock
    """Gathers the seconds of each stage."""
    window: TimeWindow | None
    """The piece to do; None is everything."""
    frame_rate: Fraction | None
    """Pictures per second that the user chose for stills; None: the default, or a video's own."""
    num_frames: int | None
    """Frames that will be done, if that can be told beforehand."""
    stores_light: bool = False
    """Whether segments hold amounts of light, as the bits of half-precision numbers."""
    on_segment: Callable[[int, int], None] | None = None
    """Called with the numbers of the shot and of the segment that is begun, from 0."""

    def open(self, window: TimeWindow | None = None) -> VideoReader | ImageReader | AnimationReader:
        """Open the source for reading, as the job reads it.

        Args:
            window: The piece to read; None is what is to be done.
        """
        return self.source.open(
            window=self.window if window is None else window,
            deinterlace=self.options.deinterlace,
            frame_rate=self.frame_rate,
            on_change=self.options.on_change,
        )

    def identity(self) -> dict[str, dict[str, Any]]:
        """Everything that the bytes of a segment depend on, as JSON values."""
        import torch

        settings = {
            "width": self.look.width,
            "height": self.look.height,
            **self.options.identity("always"),
            "device": self.upscaler.device.type,
            # As asked for: what "auto" became is in the plan, which an unfinished run keeps.
            "dtype": self.upscaler.requested_dtype,
            "deinterlace": self.options.deinterlace,
            "start_s": None if self.window is None else self.window.start_s,
            "duration_s": None if self.window is None else self.window.duration_s,
            **self.options.identity("when set"),
        }
        return {
            "source": self.source.fingerprint(),
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
    source: Source, destination: Path, outputs: Iterable[Path], *, makes_folder: bool = False
) -> None:
    """Refuse what cannot work before anything is read.

    Args:
        source: What is read.
        destination: What the user named for the result.
        outputs: Files that would be written, as far as that is known.
        makes_folder: Whether the destination's folder may be missing, since it will be made.

    Raises:
        VideoError: The source is missing or would be replaced, or the folder is not writable.
    """
    if source.is_missing():
        raise VideoError(f"{str(source)!r} does not exist; check the name")
    refuse_own_input((destination, *outputs), source)
    folder = destination.absolute().parent
    if not (makes_folder and not folder.exists()) and not os.access(folder, os.W_OK | os.X_OK):
        raise VideoError(
            f"the folder {str(destination.parent)!r} must be writable and is not; choose another"
        )


def refuse_own_input(outputs: Iterable[Path], *inputs: Source) -> None:
    """Refuse an output that is one of the inputs, even where replacing is allowed.

    Files are compared and not names: a link to an input is that input.

    Args:
        outputs: Files and folders that would be written; those that are not there do no harm.
        inputs: What is read.

    Raises:
        VideoError: One is.
    """
    paths = {path for source in inputs for path in (source.path, *source.files)}
    read = {_file_id(path) for path in paths if isinstance(path, Path)} - {None}
    for output in outputs:
        if _file_id(output) in read:
            raise VideoError(
                f"output {str(output)!r} is the input itself; name another file, the input is "
                "never replaced"
            )


def _file_id(path: Path) -> tuple[int, int] | None:
    """Device and number of a file, the same under all its names; None if there is none."""
    try:
        status = path.stat()
    except (OSError, ValueError):
        return None
    return status.st_dev, status.st_ino


def exists_error(destination: Path) -> VideoError:
    """The sentence for an output that is there already."""
    return VideoError(
        f"{str(destination)!r} exists already; give --overwrite to replace it or another name"
    )
