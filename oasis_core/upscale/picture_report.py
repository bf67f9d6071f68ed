"""What pictures kept of their source."""

from __future__ import annotations

from ..video import MuxReport
from ..video.image_tags import ImageTags
from ..video.image_writer import LIGHT_SUFFIX, ImageSpec
from ..video.linear_light import read_exr_header
from .job import Job


def picture_report(job: Job, spec: ImageSpec, tags: ImageTags) -> MuxReport:
    """What pictures kept of their source, and what not.

    Args:
        job: What was done.
        spec: How the pictures are written.
        tags: Of the first picture of the source.
    """
    kept, dropped = [], list(spec.losses)
    if tags.icc is not None:
        has_place = spec.suffix != LIGHT_SUFFIX
        (kept if has_place else dropped).append(
            "colour profile (ICC)" + ("" if has_place else f": {spec.suffix} has no place for it")
        )
    if tags.exif is not None and spec.suffix not in (".tif", ".tiff", LIGHT_SUFFIX):
        kept.append("camera data (EXIF), with its orientation set to upright")
    elif tags.exif is not None:
        dropped.append(f"camera data (EXIF): not written into {spec.suffix}")
    elif tags.has_loose_exif:
        dropped.append("camera data (EXIF): not taken out of a TIFF")
    dropped += job.info.not_kept
    if job.info.is_linear:
        dropped += _light_losses(job)
    if job.info.audio_streams:
        dropped.append(f"{len(job.info.audio_streams)} sound track(s): pictures have none")
    return MuxReport(kept=tuple(kept), dropped=tuple(dropped))


def _light_losses(job: Job) -> list[str]:
    """What an OpenEXR source has that is not read, one line each."""
    lines = []
    header = read_exr_header(job.info.path)
    if header.other_channels:
        names = ", ".join(header.other_channels)
        lines.append(f"channels {names}: only R, G, B, A and Y are read")
    if header.attributes:
        lines.append(f"header attributes {', '.join(header.attributes)}: not written")
    if header.is_deep and job.stores_light:
        lines.append("32-bit numbers: written as half, which has 11 bits and ends at 65504")
    return lines
