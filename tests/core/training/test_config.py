from pathlib import Path

import pytest

import oasis_core
from oasis_core.training.config import TrainingError, load_training_config
from oasis_core.training.loop import WEIGHTS_NAME

GOOD = """
model = "oasis-tiny"
data_dirs = ["data"]
output_dir = "runs/x"

[[stages]]
name = "one"
num_steps = 10
learning_rate = 1e-4
final_learning_rate = 0
"""


def write(tmp_path, text):
    path = tmp_path / "config.toml"
    path.write_text(text)
    return path


def test_shipped_config_is_valid_and_routes_after_training_unrouted():
    path = Path(oasis_core.__file__).parent / "weights" / "oasis-tiny.toml"
    config = load_training_config(path)
    first, *later = config.stages
    assert first.calibrate_window_heads < 0
    assert any(stage.calibrate_window_heads > 0 for stage in later)
    for number in range(2, 6):
        name = f"oasis-tiny-{number}.toml"
        goes_on = load_training_config(path.with_name(name))
        assert goes_on.initial_model == f"{config.output_dir}/{WEIGHTS_NAME}"
        config = goes_on


def test_good_config_is_read(tmp_path):
    config = load_training_config(write(tmp_path, GOOD))
    assert config.stages[0].num_steps == 10
    assert config.data_dirs == ("data",)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("num_steps = 10", "num_steps = 0"), "at least 1"),
        (("num_steps = 10", "num_stepps = 10"), "unknown key 'num_stepps'"),
        (("num_steps = 10", 'num_steps = "ten"'), "num_steps must be int"),
        (("num_steps = 10", "num_steps = 10\ncrop_px = 100"), "multiple of 32"),
        (("num_steps = 10", "num_steps = 10\ndegradations = { mild = 1 }"), "unknown degradation"),
        (("num_steps = 10", "num_steps = 10\ndegradations = { light = -1 }"), "positive"),
        (("oasis-tiny", "oasis-huge"), "model must be one of"),
        (('model = "oasis-tiny"', ""), "missing"),
        (("[[stages]]", "[stages]"), "tables"),
        (("=", ":"), "cannot be read"),
        (('output_dir = "runs/x"', 'output_dir = "runs/x"\nema_decay = 1.0'), "ema_decay"),
        (("num_steps = 10", "num_steps = 10\ncharbonnier_epsilon = 0"), "charbonnier_epsilon"),
        (("num_steps = 10", "num_steps = 10\npixel_loss = 'l3'"), "pixel_loss"),
        (("num_steps = 10", "num_steps = 10\nfrequency_weight = -1"), "frequency_weight"),
        (("num_steps = 10", "num_steps = 10\nlatent_weight = 1"), "needs latent_encoder"),
        (("num_steps = 10", "num_steps = 10\nbatch_size = 300"), "samples_per_shard"),
        (('output_dir = "runs/x"', 'output_dir = "runs/x"\nsample_every = 5'), "validation_dirs"),
        (('output_dir = "runs/x"', 'output_dir = "x"\ndata_workers = 0'), "data_workers"),
        (('output_dir = "runs/x"', 'output_dir = "x"\nperceptual_network = "vgg"'), "lpips"),
    ],
)
def test_bad_configs_are_one_sentence(tmp_path, change, message):
    with pytest.raises(TrainingError, match=message) as error:
        load_training_config(write(tmp_path, GOOD.replace(*change)))
    assert "\n" not in str(error.value) or "cannot be read" in str(error.value)


def test_missing_file_is_one_sentence(tmp_path):
    with pytest.raises(TrainingError, match="cannot be read"):
        load_training_config(tmp_path / "none.toml")


def test_fingerprint_ignores_how_a_run_is_watched_and_sees_what_changes_the_weights(tmp_path):
    def fingerprint(extra=""):
        text = GOOD.replace('output_dir = "runs/x"', f'output_dir = "runs/y"\n{extra}')
        return load_training_config(write(tmp_path, text)).fingerprint()

    same = load_training_config(write(tmp_path, GOOD)).fingerprint()
    assert fingerprint('data_workers = 3\nsample_every = 9\nvalidation_dirs = ["v"]') == same
    assert fingerprint("gradient_checkpointing = true") == same
    assert fingerprint("seed = 4") != same
    assert fingerprint("yardstick_convs = 9") != same


def test_states_of_the_first_version_keep_their_fingerprint(tmp_path):
    # What version 0.1.0 computed for this configuration.
    expected = "77de2654d73de0c6c43a94b749ad7f6631c750c5ba2d4611823f4532493f3952"
    assert load_training_config(write(tmp_path, GOOD)).fingerprint() == expected
