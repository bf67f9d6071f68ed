"""Masks of every kind at the size of the result."""

from fractions import Fraction

import av
import numpy as np
import pytest
import torch

from oasis_core.finish.mask import Mask, MaskFrames, fingerprint_of, inside

RATE = Fraction(24)
CPU = torch.device("cpu")


def picture(path, values):
    """Write grey values `h w` uint8 as a PNG."""
    frame = av.VideoFrame.from_ndarray(values, format="gray")
    encoder = av.CodecContext.create("png", "w")
    encoder.width, encoder.height, encoder.pix_fmt = frame.width, frame.height, "gray"
    encoder.time_base = Fraction(1, 24)
    path.write_bytes(b"".join(bytes(p) for p in (*encoder.encode(frame), *encoder.encode(None))))
    return path


def half(height=32, width=48):
    values = np.zeros((height, width), np.uint8)
    values[:, width // 2 :] = 255
    return values


def test_a_still_of_any_size_holds_for_every_frame_and_has_exact_ends(tmp_path):
    mask = Mask.of(picture(tmp_path / "mask.png", half())).fitted(9, rate=RATE)
    frames = MaskFrames(mask, 50, 100, CPU)
    for number in (0, 8, 3):
        values = frames.at(number)
        assert values.shape == (50, 100)
        assert torch.equal(values[:, :45], torch.zeros(50, 45))
        assert torch.equal(values[:, 55:], torch.ones(50, 45))
        edge = values[0, 45:55]
        assert bool((edge[1:] >= edge[:-1]).all())
        assert 0 < float(edge[5]) < 1


def test_values_beside_black_and_white_are_black_and_white():
    values = torch.tensor([[[0.0, 1 / 255, 2 / 255, 0.5, 253 / 255, 254 / 255, 1.0]]]).expand(
        1, 8, 7
    )
    frames = MaskFrames(Mask.of(values).fitted(3, rate=RATE), 8, 7, CPU)
    assert frames.at(0)[0].tolist() == pytest.approx([0, 0, 2 / 255, 0.5, 253 / 255, 1, 1])
    assert set(frames.at(0)[0, [0, 1, 5, 6]].tolist()) == {0.0, 1.0}


def test_a_sequence_has_a_picture_for_each_frame_in_any_order(tmp_path):
    for number in range(6):
        picture(tmp_path / f"m_{number:02}.png", np.full((16, 16), 40 * number, np.uint8))
    mask = Mask.of(tmp_path / "m_%02d.png").fitted(6, rate=RATE)
    frames = MaskFrames(mask, 16, 16, CPU)
    for number in (0, 1, 4, 2, 5, 0):
        assert float(frames.at(number).mean()) == pytest.approx(40 * number / 255, abs=1e-6)
        frames.forget(before=number)
    assert float(frames.at(7, is_wanted=False).mean()) == pytest.approx(200 / 255, abs=1e-6)
    with pytest.raises(ValueError, match="ends before frame 7 of the film"):
        frames.at(7)


def test_a_film_is_a_mask(tmp_path):
    path = tmp_path / "mask.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=24)
        stream.width, stream.height, stream.pix_fmt = 32, 32, "gray"
        for level in (0, 128, 255):
            frame = av.VideoFrame.from_ndarray(np.full((32, 32), level, np.uint8), format="gray")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    mask = Mask.of(path).fitted(3, rate=RATE)
    frames = MaskFrames(mask, 8, 8, CPU)
    assert [round(float(frames.at(n).mean()), 2) for n in range(3)] == [0, 0.5, 1]


@pytest.mark.parametrize("length", [2, 5])
def test_a_mask_of_another_length_is_refused(length):
    with pytest.raises(ValueError, match=f"as many as the film, which has 4 frames, got {length}"):
        Mask.of(torch.ones(length, 8, 8)).fitted(4, rate=RATE)


def test_an_empty_mask_is_refused(tmp_path):
    with pytest.raises(ValueError, match="black everywhere, so that the model would do nothing"):
        Mask.of(picture(tmp_path / "m.png", np.zeros((16, 16), np.uint8))).fitted(4, rate=RATE)
    with pytest.raises(ValueError, match="mask must be t h w with no empty axis"):
        Mask.of(torch.ones(0, 8, 8))
    with pytest.raises(ValueError, match="mask must be finite"):
        Mask.of(torch.full((1, 8, 8), float("nan")))
    with pytest.raises(ValueError, match="does not exist; check the name"):
        Mask.of(tmp_path / "none.mp4")


def test_cells_tell_where_anything_is_white():
    values = torch.zeros(2, 64, 64)
    values[1, 40, 9] = 0.5
    frames = MaskFrames(Mask.of(values).fitted(2, rate=RATE), 64, 64, CPU)
    assert not frames.cells(range(1)).any()
    cells = frames.cells(range(2))
    assert cells.nonzero().tolist() == [[5, 1]]
    assert inside(cells, slice(33, 41), slice(8, 9))
    assert not inside(cells, slice(0, 40), slice(0, 64))


def test_fingerprints_tell_masks_apart(tmp_path):
    ones, zeros = torch.ones(1, 8, 8), torch.zeros(1, 8, 8)
    assert fingerprint_of(ones) == fingerprint_of(ones.clone()) != fingerprint_of(zeros)
    first = picture(tmp_path / "a.png", half())
    assert fingerprint_of(first) == fingerprint_of(str(first))
