import dataclasses
import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from oasis_core.checkpoint import (
    BUNDLED,
    DEFAULT_DETAIL,
    CheckpointError,
    has_vivid,
    load_checkpoint,
    read_header,
    resolve_model,
    save_checkpoint,
    update_info,
    write_rerouted,
)
from oasis_core.config import OASIS_TINY
from oasis_core.ends import vivid_names
from oasis_core.model.denoiser import build_model
from oasis_core.model.routing import HeadPattern, HeadRouting

CONFIG = dataclasses.replace(
    OASIS_TINY,
    name="small",
    stem_channels=16,
    out_channels=16,
    width=24,
    num_layers=2,
    num_heads=3,
    ffn_width=24,
    num_stem_blocks=1,
    num_decoder_blocks=1,
)
ROUTING = HeadRouting(
    patterns=((HeadPattern.WINDOW, HeadPattern.GLOBAL, HeadPattern.INTRA),) * 2, window=(3, 5, 5)
)


def random_model(seed=0):
    model = build_model(CONFIG, seed).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return model


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "small.safetensors"
    save_checkpoint(path, random_model(), ROUTING, {"licence": "CC0"})
    return path


def rewrite(path, tensors=None, **metadata):
    """Write the file again with other tensors or metadata."""
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        old = file.metadata()
    tensors = load_file(path) if tensors is None else tensors
    path.unlink()  # safetensors before 0.5 writes in place, where the tensors still are mapped
    save_file(tensors, path, metadata={**old, **metadata})


def test_round_trip_gives_the_same_function(saved):
    loaded = load_checkpoint(saved)
    direct = random_model()
    direct.transformer.apply_routing(ROUTING)
    video = torch.rand(1, 3, 3, 48, 64)
    with torch.inference_mode():
        assert torch.equal(loaded.model(video), direct(video))
    assert loaded.routing == ROUTING
    assert loaded.info == {"licence": "CC0"}
    assert not list(saved.parent.glob("*.part"))


def test_facts_are_added_without_touching_the_weights(saved):
    before = load_file(saved)
    update_info(saved, metrics={"light": 1.5})
    loaded = load_checkpoint(saved)
    assert loaded.info == {"licence": "CC0", "metrics": {"light": 1.5}}
    assert loaded.routing == ROUTING
    after = load_file(saved)
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_header_is_read_without_weights(saved):
    config, routing, info = read_header(saved)
    assert (config, routing, info["licence"]) == (CONFIG, ROUTING, "CC0")


def test_bundled_model_loads_and_does_something():
    checkpoint = load_checkpoint(resolve_model("oasis-tiny"))
    assert BUNDLED["oasis-tiny"].stat().st_size <= 10_000_000
    assert checkpoint.info["licence"] == "Apache-2.0"
    counts = [checkpoint.routing.counts(i) for i in range(checkpoint.routing.num_layers)]
    assert sum(window for _, _, window in counts) > 0
    with torch.inference_mode():
        residual = checkpoint.model(torch.rand(1, 3, 2, 32, 32))
    assert residual.abs().mean() > 1e-3


def test_unknown_name_lists_what_there_is():
    with pytest.raises(CheckpointError, match=r"neither a bundled model \(oasis-tiny\) nor a file"):
        resolve_model("oasis-huge")


def test_truncated_file_is_refused(saved):
    saved.write_bytes(saved.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_checkpoint(saved)


@pytest.mark.parametrize(
    "content", [b"", b"hello", b"\xff" * 64, b"\x08" + b"\0" * 7 + b"not json"]
)
def test_garbage_is_refused(tmp_path, content):
    path = tmp_path / "garbage.safetensors"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_checkpoint(path)


def test_foreign_safetensors_is_named_as_such(tmp_path):
    path = tmp_path / "foreign.safetensors"
    save_file({"weight": torch.zeros(3)}, path)
    with pytest.raises(CheckpointError, match="not an oasis checkpoint"):
        load_checkpoint(path)


def hostile(**changes):
    return json.dumps({**CONFIG.to_json(), **changes})


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({"config": "{"}, "no valid 'config'"),
        ({"config": "[1, 2]"}, "must be an object"),
        ({"config": "[" * 100_000}, "no valid 'config'"),
        ({"config": '{"name": "x"}'}, "describes no usable model"),
        ({"config": hostile(evil=1)}, "unknown model config key"),
        ({"config": hostile(width=10**12)}, "describes no usable model"),
        ({"config": hostile(width=-24)}, "describes no usable model"),
        ({"config": hostile(num_layers="2")}, "describes no usable model"),
        ({"config": hostile(num_layers=10**9)}, "describes no usable model"),
        ({"config": hostile(window_size=[3, 5])}, "describes no usable model"),
        ({"config": hostile(width=24.0)}, "describes no usable model"),
        ({"routing": "{}"}, "describes no usable model"),
        ({"routing": json.dumps(HeadRouting.all_global(3, 3).to_json())}, "usable model"),
        ({"info": "x" * 2_000_000}, "refused"),
        ({"format": "oasis-99"}, "not an oasis checkpoint"),
    ],
)
def test_hostile_metadata_is_refused(saved, metadata, message):
    rewrite(saved, **metadata)
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(saved)


def test_missing_extra_and_misshapen_tensors_are_named(saved):
    tensors = load_file(saved)
    name = "transformer.head.bias"
    rewrite(saved, {k: v for k, v in tensors.items() if k != name})
    with pytest.raises(CheckpointError, match=rf"lacks tensors \(1\), e.g. {name}"):
        load_checkpoint(saved)
    rewrite(saved, {**tensors, "surprise": torch.zeros(1)})
    with pytest.raises(CheckpointError, match=r"has unknown tensors \(1\), e.g. surprise"):
        load_checkpoint(saved)
    rewrite(saved, {**tensors, name: torch.zeros(2)})
    with pytest.raises(CheckpointError, match=f"tensor {name} must have shape"):
        load_checkpoint(saved)


def test_nan_in_the_weights_is_found(saved):
    tensors = load_file(saved)
    tensors["decoder.conv.bias"][3] = float("nan")
    rewrite(saved, tensors)
    with pytest.raises(CheckpointError, match=r"decoder\.conv\.bias holds NaN"):
        load_checkpoint(saved)


def conv_tensors(seed):
    model = random_model(seed)
    return {name: model.state_dict()[name] for name in vivid_names(model)}


@pytest.fixture
def two_ends(tmp_path):
    path = tmp_path / "two_ends.safetensors"
    save_checkpoint(path, random_model(), ROUTING, {}, vivid=conv_tensors(1))
    return path


def test_ends_come_back_exactly_and_mixtures_lie_between(two_ends, saved):
    faithful = load_checkpoint(saved).model.state_dict()
    at = {share: load_checkpoint(two_ends, detail=share) for share in (0, 0.25, 1)}
    assert [at[share].identity for share in (0, 0.25, 1)] == [
        at[0].sha256 + end for end in ("", "-detail0.25", "-detail1")
    ]
    vivid = conv_tensors(1)
    assert len(vivid) == 13
    for name, tensor in faithful.items():
        assert torch.equal(at[0].model.state_dict()[name], tensor)
        end = vivid.get(name, tensor)
        assert torch.equal(at[1].model.state_dict()[name], end)
        between = 0.75 * tensor + 0.25 * end
        assert torch.allclose(at[0.25].model.state_dict()[name], between, atol=1e-6)
    assert not torch.equal(faithful["decoder.conv.weight"], vivid["decoder.conv.weight"])


def test_only_a_file_with_two_ends_has_a_detail_of_its_own(two_ends, saved):
    assert has_vivid(two_ends)
    assert not has_vivid(saved)
    both, one = load_checkpoint(two_ends, detail=None), load_checkpoint(saved, detail=None)
    assert (both.has_vivid, both.detail) == (True, DEFAULT_DETAIL)
    assert (one.has_vivid, one.detail, one.identity) == (False, 0.0, one.sha256)
    assert load_checkpoint(saved, detail=0).detail == 0
    with pytest.raises(
        CheckpointError, match=r"detail must be left out \(or 0\), got 0\.5.*one end"
    ):
        load_checkpoint(saved, detail=0.5)


@pytest.mark.parametrize("detail", [1.2, -0.1, float("nan")])
def test_detail_is_a_share(two_ends, detail):
    with pytest.raises(ValueError, match=r"detail must be between 0 \(faithful\) and 1 \(vivid\)"):
        load_checkpoint(two_ends, detail=detail)


@pytest.mark.parametrize("detail", [0, 1, None])
def test_a_damaged_end_is_named_whichever_is_wanted(two_ends, detail):
    tensors = load_file(two_ends)
    broken = tensors["vivid.decoder.conv.bias"].clone()
    broken[3] = float("nan")
    rewrite(two_ends, {**tensors, "vivid.decoder.conv.bias": broken})
    with pytest.raises(CheckpointError, match=r"tensor vivid\.decoder\.conv\.bias holds NaN"):
        load_checkpoint(two_ends, detail=detail)
    short = tensors["decoder.conv.bias"][:-1].clone()
    rewrite(two_ends, {**tensors, "vivid.decoder.conv.bias": short})
    with pytest.raises(
        CheckpointError, match=r"vivid\.decoder\.conv\.bias must have shape \(48,\)"
    ):
        load_checkpoint(two_ends, detail=detail)
    del tensors["vivid.decoder.conv.bias"]
    rewrite(two_ends, tensors)
    with pytest.raises(CheckpointError, match=r"lacks tensors \(1\), e\.g\. vivid\.decoder"):
        load_checkpoint(two_ends, detail=detail)


def test_facts_and_routings_are_added_to_both_ends(two_ends, tmp_path):
    update_info(two_ends, metrics={"light": 1.5})
    copy = tmp_path / "rerouted.safetensors"
    write_rerouted(two_ends, copy, HeadRouting.all_global(2, 3))
    vivid = load_checkpoint(copy, detail=1).model.state_dict()
    assert all(torch.equal(vivid[name], tensor) for name, tensor in conv_tensors(1).items())
