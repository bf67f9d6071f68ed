"""oasis-1.3b's training on a shrunken Wan configuration with random weights."""

import dataclasses

import pytest
import torch
from safetensors.torch import load_file

from oasis_core.checkpoint import load_checkpoint, save_checkpoint
from oasis_core.config import OASIS_1_3B
from oasis_core.evaluation.pictures import encode_picture
from oasis_core.model.denoiser import build_model
from oasis_core.model.routing import HeadRouting
from oasis_core.training.config import StageConfig, TrainingConfig, TrainingError
from oasis_core.training.loop import STATE_NAME, Trainer, train
from oasis_core.training.network import architecture

SMALL = dataclasses.replace(
    OASIS_1_3B,
    name="small-1.3b",
    width=48,
    num_layers=2,
    num_heads=4,
    ffn_width=64,
    vae_width=4,
    tiny_width=4,
)
ROUTING = HeadRouting.all_global(2, 4, (3, 5, 5))


def save(path, config):
    """A file as `oasis convert` makes it: public weights in bfloat16, the stem new."""
    model = build_model(config, seed=1)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim > 1 and "head" not in name:
                noise = torch.randn(parameter.shape, generator=generator)
                parameter.copy_(noise * parameter[0].numel() ** -0.5)
    save_checkpoint(path, model, ROUTING, {}, dtype=torch.bfloat16)
    return str(path)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wan")
    (folder / "data").mkdir()
    texture = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    image = torch.nn.functional.interpolate(texture, size=(96, 96), mode="bicubic")[0]
    (folder / "data" / "a.png").write_bytes(encode_picture(image))
    save(folder / "unshuffle.safetensors", SMALL)
    save(folder / "latent.safetensors", dataclasses.replace(SMALL, stem="latent"))
    return folder


def configuration(files, output, **stage_changes):
    stage = StageConfig(
        name="latent and pixels",
        num_steps=24,
        learning_rate=2e-3,
        final_learning_rate=2e-3,
        warmup_steps=1,
        batch_size=1,
        num_frames=5,
        crop_px=32,
        latent_weight=1.0,
        transformer_rate=1.0,
        degradations={"light": 1.0},
    )
    return TrainingConfig(
        model="initial",
        initial_model=str(files / "unshuffle.safetensors"),
        latent_encoder=str(files / "latent.safetensors"),
        data_dirs=(str(files / "data"),),
        output_dir=str(output),
        stages=(dataclasses.replace(stage, **stage_changes),),
        samples_per_shard=2,
        uses_per_sample=20,
        save_every=8,
        gradient_checkpointing=True,
    )


@pytest.mark.slow
def test_a_latent_model_trains_by_the_same_loop_and_its_decoder_stays_frozen(files, tmp_path):
    losses = []
    path = train(configuration(files, tmp_path), lambda trainer, loss: losses.append(loss))
    assert sum(losses[-6:]) < 0.9 * sum(losses[:6])
    before = load_file(files / "unshuffle.safetensors")
    state = load_file(tmp_path / STATE_NAME)
    frozen = [name for name in before if name.startswith("wan_decoder.")]
    assert frozen
    assert all(torch.equal(state["model." + name], before[name].float()) for name in frozen)
    moved = "transformer.patch_embedding.weight"
    assert not torch.allclose(state["model." + moved], before[moved].float(), atol=1e-3)
    loaded = load_checkpoint(path)
    assert loaded.model.config.decoder == "wan"
    with torch.inference_mode():
        assert loaded.model(torch.rand(1, 3, 5, 32, 32)).isfinite().all()


@pytest.mark.slow
def test_a_killed_latent_run_continues_to_the_same_weights(files, tmp_path):
    class StoppedError(Exception):
        pass

    def stop(trainer, loss):
        if trainer.step == 11:
            raise StoppedError

    whole = train(configuration(files, tmp_path / "whole", num_steps=14))
    with pytest.raises(StoppedError):
        train(configuration(files, tmp_path / "killed", num_steps=14), stop)
    resumed = train(configuration(files, tmp_path / "killed", num_steps=14))
    expected, actual = load_file(whole), load_file(resumed)
    assert all(torch.equal(expected[name], actual[name]) for name in expected)


def test_calibration_in_the_loop_routes_a_latent_model(files, tmp_path):
    config = configuration(files, tmp_path, num_steps=1, calibrate_window_heads=5)
    loaded = load_checkpoint(train(config))
    assert sum(loaded.routing.counts(layer)[2] for layer in range(2)) == 5


def test_latent_losses_need_a_latent_model_and_an_encoder(files, tmp_path):
    config = configuration(files, tmp_path)
    no_encoder = dataclasses.replace(config, latent_encoder=str(files / "unshuffle.safetensors"))
    with pytest.raises(TrainingError, match="checkpoint with a VAE encoder"):
        Trainer(no_encoder)
    with pytest.raises(TrainingError, match="latent_weight needs a latent model"):
        Trainer(dataclasses.replace(config, model="oasis-tiny", initial_model=""))
    with pytest.raises(TrainingError, match="needs initial_model"):
        dataclasses.replace(config, initial_model="")


def test_frame_counts_that_a_latent_cannot_have_are_refused(files, tmp_path):
    with pytest.raises(ValueError, match=r"num_frames must be 4k\+1"):
        train(configuration(files, tmp_path, num_frames=4))


def test_a_model_that_works_in_chunks_is_not_trained_here(files, tmp_path):
    with pytest.raises(TrainingError, match="got infvsr, which is converted from public files"):
        architecture(
            dataclasses.replace(configuration(files, tmp_path), model="infvsr", initial_model=""),
            None,
        )
