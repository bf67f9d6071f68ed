"""A playable file from an unfinished run."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from ..remote import RemoteFile, as_source
from ..video import EncodeSpec, MuxReport, VideoError, check_destination, has_streams, mux
from ..video.names import is_pattern
from .job import exists_error, refuse_own_input
from .journal import (
    FOLDER_SUFFIX,
    MANIFEST,
    Journal,
    JournalError,
    journal_path,
    read_manifest,
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
    refuse_own_input(target, as_source(about["source"]))
    if target.exists() and not overwrite:
        raise exists_error(target)
    records = Journal.read_records(folder)
    done = [record for index, record in enumerate(records) if record.index == index]
    if not done:
        raise VideoError(
            f"no segment of {str(folder)!r} is finished yet; wait for the first one or continue "
            "the run"
        )
    source = as_source(about["source"])
    is_piece = identity["setting"].get("start_s") is not None
    is_there = _is_there(source)
    has_sound = is_there and not source.is_dir() and not is_pattern(source) and has_streams(source)
    segments = [folder / f"segment_{record.index:06d}.mkv" for record in done]
    cut = "both" if is_piece else "end"
    lost = None if is_there else f"{str(source)!r} cannot be read any more"
    try:
        muxed = mux(segments, source if has_sound else None, target, spec, cut=cut)
    except VideoError as error:  # the source is damaged; if it is the disk, it fails again
        if not has_sound:
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


def _is_there(source: Path | RemoteFile) -> bool:
    """Whether the source can still be asked for its sound; a pattern is taken to be there."""
    try:
        return source.exists() or is_pattern(source)
    except OSError:
        return False


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
