"""A playable file from an unfinished run."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, replace
from pathlib import Path

from ..remote import RemoteFile, as_source
from ..video import (
    ChangeError,
    EncodeSpec,
    MuxReport,
    Source,
    VideoError,
    check_destination,
    mux,
)
from ..video.image_writer import IMAGE_FORMATS
from ..video.names import is_pattern
from .job import Job, exists_error, refuse_own_input
from .journal import (
    FOLDER_SUFFIX,
    MANIFEST,
    Journal,
    JournalError,
    journal_path,
    read_manifest,
    segment_name,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class PartialReport:
    """What a partial file holds."""

    frames: int
    """Frames from the beginning that were finished without a gap."""
    num_segments: int
    """Segments they come from."""
    num_waiting: int
    """Finished segments behind a gap, left out."""
    muxed: MuxReport
    """What else is in the file."""


def export_partial(
    unfinished: str | Path, destination: str | Path, *, overwrite: bool = False
) -> PartialReport:
    """Write what an unfinished run has done so far as a file that plays; the run stays as it is.

    The sound is cut where the picture ends, and left out, with a word, if it cannot be read. The
    run may be going on meanwhile.

    Args:
        unfinished: The output that the run is to write, or its `.oasis` folder.
        destination: File to write.
        overwrite: Replace an existing destination.

    Raises:
        VideoError: There is no such run, nothing is finished, or the file cannot be written.
    """
    folder, target = _folder_of(Path(unfinished)), Path(destination)
    manifest = _read_manifest(folder)
    identity, about = manifest["identity"], manifest["about"]
    spec = EncodeSpec.from_json(identity["encoding"])
    check_destination(target, spec.codec)
    name = as_source(about["source"])
    source = _source_of(name)
    refuse_own_input([target], *(() if source is None else (source,)))
    if target.exists() and not overwrite:
        raise exists_error(target)
    records = Journal.read_records(folder)
    done = [record for index, record in enumerate(records) if record.index == index]
    if not done:
        raise VideoError(
            f"no segment of {str(folder)!r} is finished yet; wait for the first one or continue "
            "the run"
        )
    is_piece = identity["setting"].get("start_s") is not None
    beside = None if source is None else source.beside
    segments = [folder / segment_name(record.index) for record in done]
    cut = "both" if is_piece else "end"
    # Of pictures nothing is lost with them: they have no sound.
    is_lost = source is None and not is_pattern(name)
    lost = f"{str(name)!r} cannot be read any more" if is_lost else None
    try:
        muxed = mux(segments, beside, target, spec, cut=cut)
    except VideoError as error:  # the source is damaged; if it is the disk, it fails again
        if beside is None:
            raise
        muxed, lost = mux(segments, None, target, spec, cut=cut), str(error)
    if lost is not None:
        muxed = replace(muxed, dropped=(*muxed.dropped, f"sound and all else: {lost}"))
    return PartialReport(
        frames=sum(record.num_frames for record in done),
        num_segments=len(done),
        num_waiting=len(records) - len(done),
        muxed=muxed,
    )


def stopped_at_change(job: Job, error: ChangeError, num_frames: int) -> ChangeError:
    """The sentence for a run that is done up to where its source goes on as another film.

    Args:
        job: what was to be done.
        error: the reader's.
        num_frames: frames that are done.
    """
    if num_frames == 0:
        return error
    target = job.destination
    if target.suffix.lower() in IMAGE_FORMATS or not target.suffix:
        return ChangeError(
            error.fact,
            f"the {num_frames} frames before it are done, and the same command with --on-change "
            "scale goes on, fitting what comes later into the first size",
            error.at_s,
        )
    first, rest = (target.with_name(f"{target.stem}.part{n}{target.suffix}") for n in (1, 2))
    names = [shlex.quote(str(name)) for name in (job.source, target, first, rest)]
    return ChangeError(
        error.fact,
        f"the {num_frames} frames before it are done: `oasis export-partial {names[1]} {names[2]}` "
        f"writes them and `oasis upscale {names[0]} {names[3]} --start {error.at_s:.3f}`, with "
        "your other options, does the rest; or the same command with --on-change scale goes on, "
        "fitting what comes later into the first size",
        error.at_s,
    )


def _source_of(name: Path | RemoteFile) -> Source | None:
    """The source, if it can still be asked for its sound."""
    try:
        source = Source.resolve(name)
        return source if source.pictures or name.exists() else None
    except (OSError, VideoError):
        return None


def _folder_of(path: Path) -> Path:
    folder = path if path.name.endswith(FOLDER_SUFFIX) else journal_path(path)
    if not (folder / MANIFEST).is_file():
        raise VideoError(
            f"{str(folder)!r} holds no unfinished run; give the name of the output that was being "
            "written"
        )
    return folder


def _read_manifest(folder: Path) -> dict:
    manifest = read_manifest(folder)
    try:
        manifest["identity"]["encoding"]["hdr"], manifest["about"]["source"]
    except (KeyError, TypeError) as error:
        raise JournalError(
            f"the journal {str(folder)!r} cannot be read ({error}), or another version wrote it; "
            "continue the run with that version"
        ) from error
    return manifest
