import pytest

from oasis_core.words import counted, lasting, one_of


def test_counts_fit_their_noun():
    assert counted(1, "frame") == "1 frame"
    assert counted(0, "shot") == "0 shots"
    assert counted(2, "copy", "copies") == "2 copies"


def test_choices():
    assert one_of(["a"]) == "a"
    assert one_of(["a", "b"]) == "a or b"
    assert one_of(["a", "b", "c"]) == "a, b or c"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (89.4, "89 s"),
        (90, "2 min"),
        (3540, "59 min"),
        (3599, "1 h"),
        (12000, "3 h 20 min"),
        (99990, "28 h"),
    ],
)
def test_lasting(seconds, text):
    assert lasting(seconds) == text
