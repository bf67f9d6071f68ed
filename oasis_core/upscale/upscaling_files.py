"""Upscaling a file into a file: streaming both ways, resumable at every segment."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..finish.grain_checks import check_grain
from ..geometry import round_up
from ..options import UpscaleOptions
from ..remote import RemoteFile
from ..video import ClipSource, MuxReport, Source
from .animation_target import AnimationTarget
from .forecast import Forecast, make_forecast
from .job import Job, check_paths, exists_error, output_path, refuse_own_input
from .journal import Journal, journal_path
from .look import STAGES, Look, StageClock
from .outline import Outline
from .picture_target import PictureTarget
from .progress import stage_of
from .report import UpscaleReport
from .side_by_side import check_comparison, compare_files, comparison_path, is_there
from .targets import Target, make_target

if TYPE_CHECKING:
    from ..video import EncodeSpec
    from .plan import Plan
    from .run import JobRun
    from .upscaler import OnProgress, VideoUpscaler

log = logging.getLogger(__name__)

OnSegment = Callable[[int, int], None]


def upscale_file(
    source: str | Path | RemoteFile | ClipSource | Source,
    destination: str | Path,
    *,
    upscaler: VideoUpscaler | Callable[[], VideoUpscaler],
    on_begin: Callable[[Outline], None] | None = None,
    on_plan: Callable[[Plan], None] | None = None,
    on_segment: OnSegment | None = None,
    on_progress: OnProgress | None = None,
    engine: Callable[..., JobRun] | None = None,
    **options: Any,
) -> UpscaleReport:
    """Upscale a video file, with its sound and all else that the new file can hold; or pictures.

    Frames are decoded, upscaled and encoded segment by segment, so memory does not depend on the
    length. Finished segments are kept in `DESTINATION.oasis`; the same call continues there after
    the process was stopped in whatever way, and the result is the same. The destination appears
    complete or not at all.

    Args:
        source: Video file or a URL of one, picture, numbered pictures (`in_%05d.png`) or a folder
            of pictures; or a clip in memory.
        destination: File to write, its ending chooses the format; `out_%05d.png` for a sequence,
            or a folder for pictures from pictures.
        upscaler: Model, device and arithmetic; or what loads it, called once everything that names,
            files and options decide has been checked.
        on_begin: Called with what is about to be done, which is one line as text, once all that was
            to be checked has been.
        on_plan: Called with the plan before the first frame is upscaled.
        on_segment: Called with (shot, segment), both from 0, when one is begun in this process.
        on_progress: Called with (frames done, frames in all) after each block of the model and each
            encoded frame, never going back; may raise to stop, which leaves a run that can be
            continued.
        engine: What does the segments, None: this process; the journal and the result are the same
            with any.
        **options: Fields of `UpscaleOptions`, `scale` or `size` among them.

    Returns:
        What was done, how long it took and what could not be kept.

    Raises:
        VideoError: The source cannot be read, the destination cannot be written, or an unfinished
            run does not match.
        ValueError: An argument is out of range, the result does not fit into memory, or the
            model's result is not finite.
    """
    begun = time.perf_counter()
    wanted = UpscaleOptions(**options)
    make_job, target = _prepare(source, output_path(destination), wanted)
    job = _with_model(make_job, upscaler, on_segment=on_segment)
    run, muxed = _carry_out(job, target, wanted, engine, on_begin, on_plan, on_progress)
    return run.report(muxed, time.perf_counter() - begun)


def forecast_file(
    source: str | Path | RemoteFile | ClipSource | Source,
    destination: str | Path,
    *,
    upscaler: VideoUpscaler | Callable[[], VideoUpscaler],
    makes_folder: bool = False,
    **options: Any,
) -> Forecast:
    """Say what `upscale_file` would do with the same arguments, and write nothing.

    Whatever `upscale_file` refuses before its first frame is refused here, too.

    Args:
        source: As for `upscale_file`.
        destination: Likewise.
        upscaler: Likewise.
        makes_folder: Whether the destination's folder may be missing, since it will be made.
        **options: Fields of `UpscaleOptions`.

    Raises:
        VideoError: See `upscale_file`.
        ValueError: Likewise.
    """
    wanted = UpscaleOptions(**options)
    make_job, target = _prepare(source, output_path(destination), wanted, makes_folder=makes_folder)
    job = _with_model(make_job, upscaler)
    beside = None if wanted.compare is None else comparison_path(job.destination)
    return make_forecast(job, target, _plan(job), comparison=beside, is_fresh=wanted.fresh)


def _prepare(
    name: str | Path | RemoteFile | ClipSource | Source,
    destination: Path,
    wanted: UpscaleOptions,
    *,
    makes_folder: bool = False,
) -> tuple[Callable[..., Job], Target]:
    """Check everything that can be checked without a model, and describe the job but for it."""
    source, target = make_target(name, destination, wanted.encoding, makes_folder=makes_folder)
    check_paths(source, destination, target.outputs(), makes_folder=makes_folder)
    _check_absent(target, destination, wanted)
    window, frame_rate = wanted.window, wanted.frame_rate(source)
    info = source.probe(frame_rate=frame_rate, deinterlace=wanted.deinterlace)
    survey = source.survey(info, window)
    info = survey.info
    if wanted.on_change == "stop":
        survey.refuse_changes(source, window)
    width, height = wanted.target_size(info.width, info.height)
    if wanted.compare is not None and isinstance(target, AnimationTarget):
        raise ValueError(
            f"compare is for videos and pictures, got {destination.suffix}; leave it out (and "
            "--preview, which asks for it), or write a video"
        )
    if wanted.compare is not None:
        larger = replace(info, width=width, height=height)
        check_comparison(
            larger,
            destination,
            mode=wanted.compare,
            codec=target.codec,
            is_picture=isinstance(target, PictureTarget),
        )
    check_grain(wanted.grain, (info.width, info.height), info.bit_depth, survey.num_frames)
    look = Look.of(wanted, width, height)
    if look.mask is not None and look.mask.source is not None:
        refuse_own_input((destination, *target.outputs()), look.mask.source)
    look = look.with_fitted_mask(survey.num_frames, window=window, rate=info.frame_rate)
    spec = target.segment_spec(info, width, height)
    _warn_of_odd_sides(spec, wanted)
    make_job = partial(
        Job,
        source=source,
        destination=destination,
        info=info,
        look=look,
        spec=spec,
        options=wanted,
        clock=StageClock(dict.fromkeys(STAGES, 0.0)),
        window=window,
        frame_rate=frame_rate,
        num_frames=survey.num_frames,
        stores_light=target.stores_light,
    )
    return make_job, target


def _warn_of_odd_sides(spec: EncodeSpec, wanted: UpscaleOptions) -> None:
    is_odd = spec.width % 2 or spec.height % 2
    if is_odd and not wanted.pix_fmt and spec.pixel_format.startswith("yuv444p"):
        log.warning(
            "%dx%d is odd, so the film is 4:4:4, which many players do not show; --even makes it "
            "%dx%d",
            spec.width,
            spec.height,
            spec.width - spec.width % 2,
            spec.height - spec.height % 2,
        )


def _with_model(
    make_job: Callable[..., Job],
    upscaler: VideoUpscaler | Callable[[], VideoUpscaler],
    **options: Any,
) -> Job:
    """The job, once the model is there: one that builds up a state must see what it is built of."""
    upscaler = upscaler() if callable(upscaler) else upscaler
    job = make_job(upscaler=upscaler, **options)
    if job.window is None:
        return job
    traits, beyond = upscaler.traits, job.look.frames_beyond
    before = max(job.window.context_frames, traits.lead_frames)
    if beyond:
        more = round_up(beyond, math.lcm(traits.stride[0], traits.segment_multiple))
        before = max(before, traits.halo_frames) + more
    return replace(job, window=replace(job.window, context_frames=before))


def _check_absent(target: Target, destination: Path, wanted: UpscaleOptions) -> None:
    """Refuse to replace a file without being told to."""
    # A journal may belong to exactly this output, complete but for its last step.
    if wanted.overwrite or (journal_path(destination).exists() and not wanted.fresh):
        return
    if target.exists():
        raise exists_error(destination)
    beside = comparison_path(destination)
    if wanted.compare is not None and is_there(beside):
        raise exists_error(beside)


def _plan(job: Job) -> Plan:
    info = job.info
    return job.upscaler.plan(
        (info.width, info.height),
        (job.look.width, job.look.height),
        num_frames=job.num_frames,
        bytes_per_channel=6 if info.is_linear else 2 if info.bit_depth > 8 else 1,
        frames_beyond=job.look.frames_beyond,
        **job.options.fixed_plan,
    )


def _carry_out(
    job: Job,
    target: Target,
    wanted: UpscaleOptions,
    engine: Callable[..., JobRun] | None,
    on_begin: Callable[[Outline], None] | None,
    on_plan: Callable[[Plan], None] | None,
    on_progress: OnProgress | None,
) -> tuple[JobRun, MuxReport]:
    """Plan, do, finish and compare, with the journal held."""
    if engine is None:
        from .run import LocalRun as engine  # noqa: N813 (a class that serves as the function)
    plan = _plan(job)
    about = {"source": str(job.source.absolute()), "num_frames": job.num_frames}
    folder, watch = journal_path(job.destination), job.source.watch()
    with Journal(
        folder, job.identity(), about=about, is_fresh=wanted.fresh, before_record=watch.check
    ) as journal:
        is_done = target.is_finished(journal)
        if not is_done and target.exists() and not job.options.overwrite:
            raise exists_error(job.destination)
        if journal.plan is not None:
            plan = plan.following(journal.plan)
        elif job.look.grain is not None:
            from .job_grain import grain_of_job

            plan = replace(plan, grain=grain_of_job(job))
        if on_begin is not None:
            done = sum(record.num_frames for record in journal.records)
            on_begin(Outline.of(job, done))
        if on_plan is not None:
            on_plan(plan)
        journal.start(plan.to_json())
        run = engine(job, plan, journal, on_progress)
        run.is_done = is_done
        run.upscale()
        run.progress.complete()
        stage_of(on_progress)("mux", 0, 0)
        with job.clock("mux"):
            muxed = target.finish(job, journal, job.facts(plan, run.num_shots))
        if wanted.compare is not None:
            with job.clock("compare"):
                _compare(job, target, wanted.compare, run.num_frames)
        journal.remove()
    return run, muxed


def _compare(job: Job, target: Target, mode: str, num_frames: int) -> None:
    compare_files(
        job.source,
        target.result(job, num_frames),
        comparison_path(job.destination),
        mode=mode,
        codec=target.codec,
        window=job.window,
        deinterlace=job.options.deinterlace,
        frame_rate=job.frame_rate,
        overwrite=True,
        on_change=job.options.on_change,
    )
