from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import pytest
import torch

from oasis_core.commands.degrade import CODECS as COMMAND_CODECS
from oasis_core.degradation import DegradationError, apply_recipe, degrade, draw_recipe
from oasis_core.degradation.batch import ClipInWork, apply_recipes
from oasis_core.degradation.codec import DECODERS, compress, is_available
from oasis_core.degradation.recipe import CODECS, check_codecs


def clips(count=4, t=2, h=32, w=48):
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(count * t, 3, h // 4, w // 4, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, size=(h, w), mode="bicubic").clamp(0, 1)
    return list(smooth.split(t))


def recipe(preset, seed, num_frames=2):
    generator = torch.Generator().manual_seed(seed)
    steps = draw_recipe(preset, num_frames=num_frames, scale=4, generator=generator)
    return steps, generator


@pytest.mark.parametrize("preset", ["light", "consistent", "inconsistent", "web"])
def test_many_clips_at_once_equal_each_alone(preset):
    alone, jobs = [], []
    for seed, clip in enumerate(clips()):
        steps, generator = recipe(preset, seed)
        alone.append(apply_recipe(clip, steps, size=(8, 12), generator=generator))
        steps, generator = recipe(preset, seed)
        jobs.append(ClipInWork(clip=clip, steps=steps, size=(8, 12), generator=generator))
    together = apply_recipes(jobs)
    for expected, actual in zip(alone, together, strict=True):
        assert actual.shape == expected.shape == (2, 3, 8, 12)
        # Rounding of sums may move single values by one 8-bit level, which a codec can spread.
        assert (actual - expected).abs().max() <= 3 / 255
        assert (actual - expected).abs().mean() < 0.2 / 255


@pytest.mark.slow
def test_codecs_run_in_processes_to_the_same_pixels():
    def jobs():
        return [
            ClipInWork(clip=clip, steps=steps, size=(8, 12), generator=generator)
            for seed, clip in enumerate(clips(2))
            for steps, generator in [recipe("consistent", seed)]
        ]

    assert any(step.operator == "codec" for job in jobs() for step in job.steps)
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        spread = apply_recipes(jobs(), pool)
    assert all(torch.equal(a, b) for a, b in zip(apply_recipes(jobs()), spread, strict=True))


def test_vp9_is_a_real_codec_and_worse_with_higher_crf():
    if not is_available("libvpx-vp9"):
        pytest.skip("this PyAV has no VP9 encoder")
    generator = torch.Generator().manual_seed(1)
    clip = (
        clips(1, t=5, h=48, w=64)[0] + 0.1 * torch.rand(5, 3, 48, 64, generator=generator)
    ).clamp(0, 1)
    errors = [(compress(clip, "libvpx-vp9", q) - clip).abs().mean() for q in (20, 40, 60)]
    assert errors[0] < errors[1] < errors[2]
    assert torch.equal(compress(clip, "libvpx-vp9", 40), compress(clip, "libvpx-vp9", 40))


def test_more_codecs_are_drawn_only_when_asked_for():
    def drawn(codecs):
        generator = torch.Generator().manual_seed(0)
        return {
            step.params["codec"]
            for _ in range(60)
            for step in draw_recipe(
                "consistent", num_frames=1, scale=4, generator=generator, codecs=codecs
            )
            if step.operator == "codec"
        }

    assert drawn(CODECS) == {"libx264", "mpeg4"}
    assert drawn(tuple(DECODERS)) == set(DECODERS)
    assert COMMAND_CODECS == CODECS


def test_unknown_and_absent_codecs_are_one_sentence(monkeypatch):
    with pytest.raises(DegradationError, match=r"codec must be one of libx264, .*, got 'theora'"):
        degrade(clips(1)[0], codecs=["theora"])
    with pytest.raises(DegradationError, match="at least one of"):
        check_codecs([])
    monkeypatch.setitem(DECODERS, "libno", "libno")
    with pytest.raises(DegradationError, match="libno is not in this build of PyAV"):
        degrade(clips(1)[0], codecs=["libno"])
