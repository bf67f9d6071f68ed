"""What a file says about itself: tags, chapters, a timecode; copied where they are still true."""

from __future__ import annotations

from fractions import Fraction
from math import ceil

import av

from .span import Span

# The muxer writes its own; a stale value would be a lie about the new picture.
CONTAINER_KEYS = frozenset(("major_brand", "minor_version", "compatible_brands", "encoder"))
# What an MP4's iTunes metadata has a place for.
ITUNES_KEYS = frozenset(
    (
        "title", "artist", "album_artist", "composer", "album", "date", "comment", "genre",
        "copyright", "grouping", "lyrics", "description", "synopsis", "show", "episode_id",
        "network", "keywords", "creation_time", "track", "disc", "hd_video", "media_type",
    )
)  # fmt: skip
_PICTURE_KEYS = ("rotate", "encoder", "duration", "bps", "number_of_", "_statistics", "source_id")


def is_timecode(stream: av.stream.Stream) -> bool:
    """Return whether a stream is the timecode track of a MOV, which FFmpeg cannot copy.

    It writes one of its own for the film's tag `timecode`.
    """
    return stream.type == "data" and "timecode" in stream.metadata


def copy_metadata(
    source: av.container.InputContainer,
    film: av.VideoStream,
    output: av.container.OutputContainer,
    picture: av.VideoStream,
) -> None:
    """Copy the file's metadata and the film's own, without what is no longer true."""
    for key, value in source.metadata.items():
        if key.lower() not in CONTAINER_KEYS:
            output.metadata[key] = value
    picture.disposition = film.disposition.value
    for stream in source.streams:
        if is_timecode(stream):
            picture.metadata["timecode"] = stream.metadata["timecode"]
            break
    for key, value in film.metadata.items():
        if not key.lower().startswith(_PICTURE_KEYS):
            picture.metadata[key] = value


def copy_chapters(
    source: av.container.InputContainer,
    output: av.container.OutputContainer,
    shift: Fraction,
    lines: tuple[list[str], list[str]],
    span: Span | None = None,
) -> None:
    """Copy the chapters where this PyAV can; say so where it cannot.

    Args:
        source: opened for reading.
        output: opened for writing, nothing written yet.
        shift: seconds to add to every time.
        lines: of what is kept and of what is not; one is added.
        span: only chapters that reach into it, shortened to it; None is all.
    """
    if not hasattr(source, "chapters"):  # PyAV before 15; its dump of the file mentions them
        num_chapters = source.dumps_format().count("Chapter #")
        if num_chapters:
            lines[1].append(
                f"{num_chapters} chapters: PyAV {av.__version__} cannot copy them; a newer one can"
            )
        return
    chapters = source.chapters()
    if not chapters:
        return
    kept, num_behind, end_s = [], 0, _end_s(source)
    for chapter in chapters:
        tick = chapter["time_base"]
        if end_s is not None:  # they would make the film as long as themselves
            if chapter["start"] * tick >= end_s:
                num_behind += 1
                continue
            chapter["end"] = min(chapter["end"], ceil(end_s / tick))
        if span is not None:
            chapter["end"] = min(chapter["end"], int(span.stop_s / tick))
            if span.start_s is not None:
                chapter["start"] = max(chapter["start"], round(span.start_s / tick))
            if chapter["start"] >= chapter["end"]:
                continue
        chapter["start"] += round(shift / tick)
        chapter["end"] += round(shift / tick)
        kept.append(chapter)
    if kept:
        output.set_chapters(kept)
        lines[0].append(f"{len(kept)} chapters")
    if num_behind:
        lines[1].append(f"{num_behind} chapters: they begin behind the end of the film")


def _end_s(source: av.container.InputContainer) -> Fraction | None:
    """Return when the last of a file's tracks ends; None where it does not say."""
    tracks = [s for s in source.streams if s.type in ("video", "audio")]
    ends = [
        ((s.start_time or 0) + s.duration) * s.time_base
        for s in tracks
        if s.duration is not None and s.time_base is not None
    ]
    if len(ends) < len(tracks):
        ends = []
    if not ends and source.duration is not None:
        ends = [Fraction((source.start_time or 0) + source.duration, av.time_base)]
    return max(ends, default=None)


def lost_metadata(
    source: av.container.InputContainer, written: av.container.InputContainer
) -> list[str]:
    """Return a line for the metadata the container format did not take.

    Args:
        source: the opened source.
        written: the finished output, opened for reading.
    """
    have = {key.lower() for key in written.metadata}
    lost = [k for k in source.metadata if k.lower() not in have | CONTAINER_KEYS]
    if not lost:
        return []
    return [f"metadata {', '.join(sorted(lost))}: this container has no place for it"]
