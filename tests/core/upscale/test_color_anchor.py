import pytest
import torch

from oasis_core.upscale.color_anchor import ColorAnchor

CPU = torch.device("cpu")


def remove(residual, anchor, keep=slice(None)):
    """`3 t h w` without its low frequencies."""
    frames = list(residual.unbind(1))
    cells = anchor.smooth(torch.stack([anchor.measure(frame) for frame in frames]), keep)
    out = [frame.clone() for frame in frames[keep]]
    for frame, low in zip(out, cells, strict=True):
        anchor.remove_(frame, low, 1.0)
    return torch.stack(out, dim=1)


@pytest.mark.parametrize(("height", "width"), [(180, 320), (67, 131), (8, 8), (40, 300), (96, 33)])
def test_low_frequencies_of_a_still_residual_vanish(height, width):
    anchor = ColorAnchor(height, width, CPU, cell_px=32)
    still = torch.randn(3, 1, height, width, generator=torch.Generator().manual_seed(0))
    residual = still.expand(3, 7, -1, -1) * 0.1 + 0.2
    out = remove(residual, anchor)
    means = torch.stack([anchor.measure(frame) for frame in out.unbind(1)])
    assert means.abs().max() < 1e-5
    assert out.mean().abs() < 1e-6


def test_a_constant_residual_vanishes_everywhere_including_corners():
    anchor = ColorAnchor(150, 210, CPU)
    out = remove(torch.full((3, 4, 150, 210), 0.3), anchor)
    assert out.abs().max() < 1e-6


def test_detail_is_untouched():
    """Checkerboards and noise, what denoising and deblurring change, keep their energy."""
    anchor = ColorAnchor(192, 256, CPU)
    y, x = torch.arange(192)[:, None], torch.arange(256)[None, :]
    checker = ((y // 4 + x // 4) % 2 * 2.0 - 1.0).expand(3, 5, -1, -1) * 0.05
    assert (remove(checker, anchor) - checker).abs().max() < 1e-6
    noise = torch.randn(3, 5, 192, 256, generator=torch.Generator().manual_seed(0)) * 0.05
    assert (remove(noise, anchor) - noise).square().mean() < 1e-3 * noise.square().mean()


def test_every_frame_keeps_the_mean_of_its_source():
    """A model that flickers as a whole must not make the picture flicker."""
    anchor = ColorAnchor(96, 96, CPU)
    flicker = torch.tensor([0.1, -0.2, 0.05, 0.3, -0.1, 0.2])[None, :, None, None]
    out = remove(flicker.expand(3, -1, 96, 96) + torch.zeros(3, 6, 96, 96), anchor)
    assert out.mean(dim=(2, 3)).abs().max() < 1e-6


def test_halo_frames_make_it_independent_of_the_segmentation():
    anchor = ColorAnchor(96, 128, CPU)
    residual = torch.randn(3, 20, 96, 128, generator=torch.Generator().manual_seed(0))
    whole = remove(residual, anchor)
    parts = [
        remove(residual[:, 0:12], anchor, slice(0, 8)),
        remove(residual[:, 4:20], anchor, slice(4, 16)),
    ]
    assert torch.allclose(torch.cat(parts, dim=1), whole, atol=1e-6)


def test_pieces_of_a_frame_add_up():
    anchor = ColorAnchor(100, 140, CPU, cell_px=32)
    frame = torch.randn(3, 100, 140, generator=torch.Generator().manual_seed(0))
    parts = anchor.measure(frame[:, :44]) + anchor.measure(frame[:, 44:], top=44)
    assert torch.allclose(parts, anchor.measure(frame), atol=1e-6)
