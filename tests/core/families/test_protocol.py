"""What every family owes the engine, tried on each of them."""

import dataclasses
import hashlib
import json
import pickle

import pytest
import torch
from safetensors.torch import save_file

import oasis_core
from oasis_core.checkpoint import CheckpointError
from oasis_core.digests import file_sha256
from oasis_core.extras import MissingExtraError
from oasis_core.families import catalog
from oasis_core.families.files import LoadOptions, read_file_header
from oasis_core.families.module import ModuleRestorer
from oasis_core.families.restorer import (
    HasLatent,
    HasRouting,
    HasTransformer,
    Place,
    Restorer,
    Traits,
    probe_clip,
    routing_of,
    without_transformer,
)
from oasis_core.upscale import VideoUpscaler
from oasis_core.upscale.latents import check_has_latent

from .conftest import NativeNetwork, NativeRestorer
from .models import CONFIGS, OTHER, ROUTING, PlainModule, save_model

CPU = torch.device("cpu")
PLACE = Place(first_frame=0, top=0, left=0)
KINDS = ("module", "native", *CONFIGS)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    return {name: save_model(folder / f"{i}.safetensors", name) for i, name in enumerate(CONFIGS)}


@pytest.fixture(params=KINDS)
def restorer(request, files):
    if request.param == "module":
        return catalog.restorer_of(PlainModule())
    if request.param == "native":
        return NativeRestorer()
    return catalog.open_restorer(files[request.param])


def test_traits_travel_and_compare(restorer):
    assert isinstance(restorer, Restorer)
    assert pickle.loads(pickle.dumps(restorer.traits)) == restorer.traits
    assert dataclasses.replace(restorer.traits, name="other") != restorer.traits
    assert catalog.restorer_of(restorer) is restorer
    json.dumps(restorer.facts)


@torch.inference_mode()
def test_restore_is_a_function_of_its_arguments_with_the_shape_of_the_contract(restorer):
    traits = restorer.traits
    restorer.prepare(CPU, torch.float32)
    clip = probe_clip(traits, CPU)[..., :64, :64]
    first = restorer.restore(clip, PLACE)
    scale = traits.native_scale
    assert first.shape == (1, 3, clip.shape[2], 64 * scale, 64 * scale)
    restorer.restore(clip.flip(4), Place(first_frame=7, top=16, left=32))
    assert torch.equal(restorer.restore(clip, PLACE), first)
    if traits.reads == "source":
        assert 0 <= first.min() <= first.max() <= 1
    else:
        assert first.abs().max() > 1e-3


def test_preparing_twice_does_nothing(restorer):
    for dtype in (torch.float32, torch.bfloat16):
        restorer.prepare(CPU, dtype)
        places = {name: x.data_ptr() for name, x in restorer.network.state_dict().items()}
        restorer.prepare(CPU, dtype)
        assert {n: x.data_ptr() for n, x in restorer.network.state_dict().items()} == places
        held = {x.dtype for x in restorer.network.state_dict().values()}
        is_own = restorer.traits.arithmetic == "own"
        assert (dtype in held) if is_own else held == {torch.float32}
    assert not restorer.network.training


def test_memory_is_known_and_grows_or_is_unknown(restorer):
    stride = restorer.traits.stride
    small = restorer.memory_bytes(1, *stride[1:], 4)
    if small is not None:
        large = restorer.memory_bytes(1 + 4 * stride[0], 8 * stride[1], 8 * stride[2], 4)
        assert isinstance(small, int)
        assert 0 < small < large


def test_identity_stays_and_needs_no_preparing(restorer):
    before = restorer.identity
    restorer.prepare(CPU, torch.float32)
    assert restorer.identity == before
    assert VideoUpscaler(restorer, "cpu", "float32").model_hash == before
    assert VideoUpscaler(restorer, "cpu", "float32", model_hash="mine").model_hash == "mine"


def test_a_file_is_recognised_by_one_family_and_says_its_facts(files):
    for name, path in files.items():
        header = read_file_header(path)
        taken = [family for family in catalog.FAMILIES if family.recognises(header)]
        assert [family.__name__.rpartition(".")[2] for family in taken] == [name.partition(",")[0]]
        restorer, facts = catalog.open_restorer(path), catalog.describe_file(path)
        assert restorer.traits.family == name.partition(",")[0]
        assert facts["model"] == restorer.traits.name == CONFIGS[name].name
        assert facts["licence"] == restorer.facts["licence"] == "CC0-1.0"
        assert ("memory in bfloat16, 33 frames" in facts) == (name != "tiny")


@pytest.mark.parametrize(
    ("name", "options", "ending"),
    [
        ("tiny", {}, ""),
        ("tiny", {"transformer": False}, "-no-transformer"),
        ("tiny", {"compiled": True}, ""),
        ("wan", {}, ""),
        ("wan", {"decoder": "tiny"}, "-tiny"),
        ("wan", {"decoder": "wan", "decoder_tile": 64, "int8": True}, "-wan-int8-tile64"),
    ],
)
def test_identity_is_the_files_hash_and_the_options(files, name, options, ending):
    restorer = catalog.open_restorer(files[name], LoadOptions(**options))
    assert restorer.identity == file_sha256(files[name]) + ending


@pytest.mark.parametrize(
    ("name", "options", "text"),
    [
        ("tiny", {"int8": True}, "8-bit weights are for large models, got small-tiny"),
        ("tiny", {"decoder": "wan"}, r"decoder must be one that small-tiny has \(none\)"),
        ("tiny", {"decoder_tile": 64}, "decoder tiles are for Wan's decoder, small-tiny uses"),
        ("wan", {"transformer": False}, r"small-1\.3b is all transformer, so it cannot be left"),
        ("wan", {"decoder_tile": 64}, r"for Wan's decoder, small-1\.3b uses 'tiny'"),
    ],
)
def test_a_family_refuses_what_it_has_not(files, name, options, text):
    with pytest.raises(ValueError, match=text):
        catalog.open_restorer(files[name], LoadOptions(**options))


def test_files_of_no_family_are_refused_in_one_sentence(tmp_path, files):
    path = tmp_path / "other.safetensors"
    save_file({"weight": torch.zeros(2)}, path)
    for call in (catalog.open_restorer, catalog.describe_file):
        # Without spandrel it cannot be told whether the file is an image model.
        errors = (CheckpointError, MissingExtraError)
        with pytest.raises(errors, match="is not an oasis checkpoint") as caught:
            call(path)
        assert "\n" not in str(caught.value)
    path.write_bytes(files["tiny"].read_bytes()[:1000])
    with pytest.raises(CheckpointError, match="cannot be read"):
        catalog.open_restorer(path)
    save_file({"weight": torch.zeros(2)}, path, metadata={"format": "oasis-1", "config": "{}"})
    with pytest.raises(CheckpointError, match="describes no usable model: incomplete"):
        catalog.open_restorer(path)


def test_capabilities_are_asked_for_and_refused_by_name(files):
    plain = catalog.restorer_of(PlainModule())
    assert not isinstance(plain, (HasRouting, HasLatent, HasTransformer))
    for refused, text in (
        (routing_of, "attention heads like oasis-tiny, got plain, which has none"),
        (without_transformer, "plain has no transformer that could be left out"),
        (check_has_latent, r"of the oasis-1\.3b family, .* got plain, which predicts none"),
    ):
        with pytest.raises(ValueError, match=text):
            refused(plain)
    tiny, wan = (catalog.open_restorer(files[name]) for name in ("tiny", "wan"))
    assert routing_of(tiny).routing == routing_of(wan).routing == ROUTING
    assert not isinstance(tiny, HasLatent)
    assert check_has_latent(wan).latent_channels == 16
    assert wan.latent_stride == (4, 8, 8)


@torch.inference_mode()
@pytest.mark.parametrize("name", CONFIGS)
def test_restorers_of_one_network_run_as_they_are_whatever_ran_before(files, name):
    own = catalog.open_restorer(files[name])
    routed = own.routed(OTHER)
    video = torch.rand(1, 3, 5, 32, 48, generator=torch.Generator().manual_seed(0))
    upscalers = [VideoUpscaler(restorer, "cpu", "float32") for restorer in (own, routed)]
    first = [upscaler.upscale(video, scale=1) for upscaler in upscalers]
    again = [upscaler.upscale(video, scale=1) for upscaler in upscalers]
    assert not torch.equal(*first)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    fresh = catalog.open_restorer(files[name]).routed(OTHER)
    assert torch.equal(VideoUpscaler(fresh, "cpu", "float32").upscale(video, scale=1), first[1])
    assert routed.network is own.network
    sha256 = file_sha256(files[name])
    text = f"{sha256} {json.dumps(OTHER.to_json()['patterns'])} {OTHER.window}"
    assert routed.identity == hashlib.sha256(text.encode()).hexdigest()
    assert own.identity == routed.routed(None).identity == sha256


def test_without_transformer_shares_the_network_too(files):
    own = catalog.open_restorer(files["tiny"])
    alone = own.routed(OTHER).without_transformer()
    assert alone.identity == f"{file_sha256(files['tiny'])}-no-transformer"
    video = torch.rand(1, 3, 3, 32, 48, generator=torch.Generator().manual_seed(0))
    results = [VideoUpscaler(x, "cpu", "float32").upscale(video, scale=1) for x in (own, alone)]
    loaded = oasis_core.load(files["tiny"], "cpu", "float32", transformer=False)
    assert torch.equal(results[1], loaded.upscale(video, scale=1))
    assert not torch.equal(*results)
    assert torch.equal(VideoUpscaler(own, "cpu", "float32").upscale(video, scale=1), results[0])


class NativeFamily:
    """A further family, whole: what one file of `families/` has to have."""

    @staticmethod
    def recognises(header):
        return header.shapes.get("conv.weight") == (48, 3, 3, 3)

    @staticmethod
    def load(path, header, options):
        from safetensors.torch import load_file

        network = NativeNetwork(4)
        network.load_state_dict(load_file(path))
        traits = Traits(name="native", family="test", reads="source", native_scale=4)
        return ModuleRestorer(network, traits, file_sha256(path), {"licence": "CC0-1.0"})

    @staticmethod
    def describe(path, header):
        return {"model": "native", "scale": 4}

    @staticmethod
    def wraps(network):
        return isinstance(network, NativeNetwork)

    @staticmethod
    def wrap(network):
        traits = Traits(name="native", family="test", reads="source", native_scale=4)
        return ModuleRestorer(network, traits)


def test_a_new_family_is_one_module_and_one_entry(tmp_path, monkeypatch, capsys):
    from oasis_core.cli import main

    path, network = tmp_path / "4x.safetensors", NativeNetwork(4, seed=5)
    save_file(network.state_dict(), path)
    # Before the image models, which take whatever no other family knows.
    monkeypatch.setattr(catalog, "FAMILIES", (NativeFamily, *catalog.FAMILIES))
    upscaler = oasis_core.load(path, device="cpu", dtype="float32")
    video = torch.rand(1, 3, 2, 16, 20, generator=torch.Generator().manual_seed(0))
    out = upscaler.upscale(video, scale=4, color_anchor=False)
    with torch.inference_mode():
        assert torch.allclose(out, network(video), atol=1e-6)
    assert (upscaler.name, upscaler.model_hash) == ("native", file_sha256(path))
    assert torch.equal(
        VideoUpscaler(network, "cpu", "float32").upscale(video, scale=4),
        (upscaler.upscale(video, scale=4)),
    )
    assert main(["info", str(path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"model": "native", "scale": 4}


@pytest.mark.parametrize(
    ("traits", "text"),
    [
        ({"native_scale": 2}, "native_scale must be 1 for a restorer that reads the resized"),
        ({"stride": (0, 8, 8)}, "must be at least 1"),
        ({"lead_frames": -1}, "lead_frames at least 0"),
    ],
)
def test_impossible_traits_are_refused(traits, text):
    with pytest.raises(ValueError, match=text):
        Traits(name="odd", family="test", **traits)
