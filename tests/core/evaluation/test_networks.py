import pytest
import torch

from oasis_core.evaluation import networks
from oasis_core.evaluation.clips import EvaluationError
from oasis_core.evaluation.networks import MetricUnavailableError, WeightFile, mean_over_frames
from oasis_core.evaluation.suite import DEFAULT_METRICS, METRICS, MetricSuite, read_scores


@pytest.fixture(autouse=True)
def _empty_weight_folders(monkeypatch, tmp_path):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv(networks.WEIGHTS_FOLDER, raising=False)


def test_absent_weights_name_file_and_source():
    with pytest.raises(MetricUnavailableError) as error:
        networks.WEIGHTS["raft"][0].check("ewarp_published")
    assert "ewarp_published needs the file" in str(error.value)
    assert "raft_large_C_T_V1-22a6c225.pth" in str(error.value)
    assert "https://download.pytorch.org" in str(error.value)


def test_damaged_weights_are_refused_and_right_ones_taken():
    right = WeightFile("net-2cf24dba.pth", "https://example.org/net.pth")
    right.path.parent.mkdir(parents=True)
    right.path.write_bytes(b"hello")  # SHA-256 2cf24dba...
    right.check("lpips")
    right.path.write_bytes(b"hullo")
    with pytest.raises(MetricUnavailableError, match="damaged; download it again"):
        right.check("lpips")


@pytest.mark.parametrize("name", networks.FOREIGN_METRICS)
def test_metrics_without_a_free_library_point_to_scores(name):
    with pytest.raises(MetricUnavailableError, match="--scores"):
        networks.check_available(name)


def test_what_cannot_run_is_noted_and_the_rest_runs():
    suite = MetricSuite(("psnr_db", "ssim", "lpips", "musiq"))
    assert set(suite.unavailable) == {"lpips", "musiq"}
    clip = torch.rand(2, 3, 16, 16)
    assert set(suite.measure(clip, clip, None)) == {"psnr_db", "ssim"}
    assert suite.measure(clip, None, None) == {}


def test_corrected_error_runs_without_raft_and_says_so():
    suite = MetricSuite(("ewarp_published", "ewarp_corrected"))
    assert set(suite.unavailable) == {"ewarp_published"}
    assert "Lucas-Kanade" in suite.notes["ewarp_corrected"]
    assert suite.measure(torch.rand(2, 3, 32, 32), None, None)["ewarp_corrected"] > 0
    assert suite.measure(torch.rand(1, 3, 32, 32), None, None) == {}


def test_unknown_metrics_are_refused():
    with pytest.raises(EvaluationError, match=r"metric must be one of .*, got 'vmaf'"):
        MetricSuite(("psnr_db", "vmaf"))
    assert set(DEFAULT_METRICS) < set(METRICS)


def test_frames_are_scored_in_pieces_and_averaged_by_frame():
    clip = torch.arange(6.0).view(6, 1, 1, 1).expand(-1, 3, 2, 2)
    seen = []

    def score(x):
        seen.append(len(x))
        return x.mean(dim=(1, 2, 3))

    assert mean_over_frames(score, clip) == pytest.approx(2.5)
    assert seen == [4, 2]


def test_scores_of_other_tools_are_read(tmp_path):
    path = tmp_path / "scores.csv"
    path.write_text("clip,method,dover,note\na,model,0.71,x\na,bicubic,,y\n")
    assert read_scores(path) == {("a", "model"): {"dover": 0.71}, ("a", "bicubic"): {}}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "cannot be read"),
        ("clip,dover\na,1\n", "columns clip and method"),
        ("clip,method,other\na,b,1\n", "must have a column of"),
        ("clip,method,dover\na,b,one\n", "line 2"),
        ("clip,method,dover\na,b,nan\n", "finite"),
    ],
)
def test_bad_scores_are_one_sentence(tmp_path, text, message):
    path = tmp_path / "scores.csv"
    if text:
        path.write_text(text)
    with pytest.raises(EvaluationError, match=message):
        read_scores(path)
