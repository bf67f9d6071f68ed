"""Upscaling a file into a file: streaming both ways, resumable at every segment."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

from ..geometry import target_size
from ..video import MuxReport, TimeWindow, VideoError, list_images, probe
from .compare import check_comparison, compare_files, comparison_path
from .job import Job, check_paths, exists_error
from .journal import Journal, journal_path
from .plan import HALO_FRAMES, Plan
from .report import UpscaleReport
from .run import STAGES, Counts, Run
from .segment import Look, StageClock
from .targets import Encoding, FilmTarget, PictureTarget, make_target, rate_of
from .upscaler import OnProgress, VideoUpscaler


def upscale_file(
    source: str | Path,
    destination: str | Path,
    *,
    upscaler: VideoUpscaler,
    scale: float | None = None,
    size: tuple[int, int] | None = None,
    strength: float = 1.0,
    color_anchor: bool = True,
    shots: bool = True,
    tile_px: int | None = None,
    segment_frames: int | None = None,
    halo_frames: int = HALO_FRAMES,
    codec: str | None = None,
    crf: float | None = None,
    preset: str | None = None,
    bit_depth: int | None = None,
    pix_fmt: str | None = None,
    quality: int | None = None,
    start_s: float | None = None,
    duration_s: float | None = None,
    deinterlace: bool = False,
    fps: float | str | Fraction | None = None,
    compare: str | None = None,
    metadata: bool = True,
    overwrite: bool = False,
    fresh: bool = False,
    on_plan: Callable[[Plan], None] | None = None,
    on_segment: Callable[[int, int], None] | None = None,
    on_progress: OnProgress | None = None,
    engine: Callable[..., Counts] = Run,
) -> UpscaleReport:
    """Upscale a video file, with its sound and all else that the new file can hold; or pictures.

    Frames are decoded, upscaled and encoded segment by segment, so memory does not depend on the
    length. Finished segments are kept in `DESTINATION.oasis`; the same call continues there after
    the process was stopped in whatever way, and the result is the same. The destination appears
    complete or not at all.

    Args:
        source: Video file, picture, numbered pictures (`in_%05d.png`) or a folder of pictures.
        destination: File to write, its ending chooses the format; `out_%05d.png` for a sequence,
            or a folder for pictures from pictures.
        upscaler: Model, device and arithmetic.
        scale: Factor for both sides; or `size`.
        size: Exact (width, height) in pixels.
        strength: Share of the model's work: 0 is the plain resize, 1 the full model.
        color_anchor: Keep the low frequencies of the input.
        shots: Find shot cuts and keep shots apart.
        tile_px: Tile side in output pixels, instead of the planned one.
        segment_frames: Frames per segment, instead of the planned number.
        halo_frames: Frames read on both sides of a segment.
        codec: One of `oasis_core.video.CODECS`; None is "h264".
        crf: Constant rate factor, lower is better; None is the codec's default.
        preset: Speed preset of the encoder.
        bit_depth: Bits per sample of the output; None keeps the source's.
        pix_fmt: FFmpeg's pixel format of the output; None follows depth and transparency.
        quality: 1 to 100, of JPEG and WebP pictures.
        start_s: Seconds after the first frame where the piece to do begins; None is the beginning.
        duration_s: Its length in seconds; None is to the end. Sound and all else is cut with it.
        deinterlace: Make whole frames of fields.
        fps: Pictures per second, where the source is pictures.
        compare: "side" or "split" also writes `NAME.compare.mp4`: plain resize and result.
        metadata: Write into the file's comment how it was made.
        overwrite: Replace an existing destination.
        fresh: Start over instead of continuing an unfinished run.
        on_plan: Called with the plan before the first frame is upscaled.
        on_segment: Called with (shot, segment), both from 0, when one is begun in this process.
        on_progress: Called with (frames done, frames in all) after each block of the model and each
            encoded frame, never going back; may raise to stop, which leaves a run that can be
            continued.
        engine: What does the segments; the journal and the result are the same with any.

    Returns:
        What was done, how long it took and what could not be kept.

    Raises:
        VideoError: The source cannot be read, the destination cannot be written, or an unfinished
            run does not match.
        ValueError: An argument is out of range, the result does not fit into memory, or the
            model's result is not finite.
    """
    begun = time.perf_counter()
    paths = Path(source), Path(destination)
    target = make_target(
        *paths,
        Encoding(
            codec=codec,
            crf=crf,
            preset=preset,
            bit_depth=bit_depth,
            pix_fmt=pix_fmt,
            quality=quality,
        ),
    )
    check_paths(*paths)
    # A journal may belong to exactly this output, complete but for its last step.
    may_be_finished = journal_path(paths[1]).exists() and not fresh
    if target.exists() and not overwrite and not may_be_finished:
        raise exists_error(paths[1])
    beside = comparison_path(paths[1])
    if compare is not None and beside.exists() and not overwrite and not may_be_finished:
        raise exists_error(beside)
    window = None
    if start_s is not None or duration_s is not None:
        window = TimeWindow(
            start_s=start_s or 0.0, duration_s=duration_s, context_frames=halo_frames
        )
    frame_rate = rate_of(fps)
    if frame_rate is not None and list_images(paths[0]) is None:
        raise VideoError(
            f"fps is for pictures that become a video, got {fps} for the video "
            f"{str(paths[0])!r}, which has its own; leave it out"
        )
    info = probe(paths[0], frame_rate=frame_rate)
    width, height = target_size(info.width, info.height, scale=scale, size=size)
    if compare is not None:
        larger = replace(info, width=width, height=height)
        check_comparison(larger, paths[1], mode=compare, codec=target.codec)
    job = Job(
        source=paths[0],
        destination=paths[1],
        info=info,
        look=Look(width=width, height=height, strength=strength, color_anchor=color_anchor),
        spec=target.spec(info, width, height),
        upscaler=upscaler,
        shots=shots,
        requested={
            "tile_px": tile_px,
            "segment_frames": segment_frames,
            "halo_frames": halo_frames,
        },
        overwrite=overwrite,
        has_metadata=metadata,
        clock=StageClock(dict.fromkeys(STAGES, 0.0)),
        window=window,
        deinterlace=deinterlace,
        frame_rate=frame_rate,
        on_segment=on_segment,
    )
    run, muxed = _carry_out(
        job,
        target,
        engine=engine,
        fresh=fresh,
        compare=compare,
        on_plan=on_plan,
        on_progress=on_progress,
    )
    return run.report(muxed, time.perf_counter() - begun)


def _carry_out(
    job: Job,
    target: FilmTarget | PictureTarget,
    *,
    engine: Callable[..., Counts],
    fresh: bool,
    compare: str | None,
    on_plan: Callable[[Plan], None] | None,
    on_progress: OnProgress | None,
) -> tuple[Counts, MuxReport]:
    """Plan, do, finish and compare, with the journal held."""
    info, size = job.info, (job.look.width, job.look.height)
    plan = job.upscaler.plan(
        (info.width, info.height),
        size,
        num_frames=job.num_frames,
        bytes_per_channel=2 if info.bit_depth > 8 else 1,
        **job.requested,
    )
    folder, about = journal_path(job.destination), {"source": str(job.source.absolute())}
    with Journal(folder, job.identity(), about=about, is_fresh=fresh) as journal:
        is_done = target.is_finished(journal)
        if not is_done and target.exists() and not job.overwrite:
            raise exists_error(job.destination)
        if journal.plan is not None:
            plan = plan.following(journal.plan)
        if on_plan is not None:
            on_plan(plan)
        journal.start(plan.to_json())
        run = engine(job, plan, journal, on_progress)
        run.is_done = is_done
        run.upscale()
        with job.clock("mux"):
            muxed = target.finish(job, journal, job.facts(plan, run.num_shots))
        if compare is not None:
            with job.clock("compare"):
                compare_files(
                    job.source,
                    job.destination,
                    comparison_path(job.destination),
                    mode=compare,
                    codec=target.codec,
                    window=job.window,
                    deinterlace=job.deinterlace,
                    frame_rate=job.frame_rate,
                    overwrite=True,
                )
        journal.remove()
    return run, muxed
