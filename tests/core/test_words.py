from oasis_core.words import counted, one_of


def test_counts_fit_their_noun():
    assert counted(1, "frame") == "1 frame"
    assert counted(0, "shot") == "0 shots"
    assert counted(2, "copy", "copies") == "2 copies"


def test_choices():
    assert one_of(["a"]) == "a"
    assert one_of(["a", "b"]) == "a or b"
    assert one_of(["a", "b", "c"]) == "a, b or c"
