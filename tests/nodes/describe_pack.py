"""Run inside ComfyUI's interpreter: load the pack as ComfyUI does and write down what it offers.

python describe_pack.py COMFYUI PACK OUT.json
"""

import asyncio
import importlib.abc
import inspect
import json
import sys
import time
from pathlib import Path

POISON = ("triton", "flash_attn", "xformers", "sageattention")


class Poison(importlib.abc.MetaPathFinder):
    """Packages that are installed and broken: touching them is an error."""

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in POISON:
            raise RuntimeError(f"{name} was imported")


def main(comfyui: str, pack: str, out: str) -> None:
    sys.path.insert(0, comfyui)
    sys.argv = sys.argv[:1]
    import comfy.options

    comfy.options.enable_args_parsing(False)
    import comfy.cli_args

    # Before anything else of comfy, which would look for CUDA.
    comfy.cli_args.args.cpu = True
    # ComfyUI reads each pack's pyproject.toml with this; it is not the pack's time.
    import comfy_config.config_parser  # noqa: F401
    import utils.install_util  # noqa: F401 - before `nodes`, which puts comfy/ on the path

    import nodes

    for name in [name for name in sys.modules if name.partition(".")[0] in POISON]:
        del sys.modules[name]
    sys.meta_path.insert(0, Poison())
    before, known = set(sys.modules), set(nodes.NODE_CLASS_MAPPINGS)
    start = time.process_time()  # other programs must not count
    is_loaded = asyncio.run(nodes.load_custom_node(pack))
    seconds = time.process_time() - start
    imported = sorted(set(sys.modules) - before)
    offered = {k: v for k, v in nodes.NODE_CLASS_MAPPINGS.items() if k not in known}
    module = sys.modules[pack.replace(".", "_x_")]
    facts = {
        "is_loaded": is_loaded,
        "seconds": seconds,
        "imported": imported,
        "public": list(module.__all__),
        "nodes": {name: describe(node) for name, node in offered.items()},
        "constants": constants(module),
        "run": poisoned_run(module),
        "replacements": replacements(module),
    }
    Path(out).write_text(json.dumps(facts))


def describe(node) -> dict:
    schema = node.GET_SCHEMA()
    schema.validate()
    parameters = list(inspect.signature(node.execute).parameters.values())
    return {
        "display_name": schema.display_name,
        "category": schema.category,
        "description": schema.description,
        "parameters": [p.name for p in parameters if p.kind is not p.VAR_KEYWORD],
        "takes_later": any(p.kind is p.VAR_KEYWORD for p in parameters),
        "defaults": [p.name for p in parameters if p.default is not inspect.Parameter.empty],
        "inputs": [vars_of(i) for i in schema.inputs],
        "outputs": [vars_of(o) for o in schema.outputs],
    }


def vars_of(port) -> dict:
    names = ("id", "display_name", "tooltip", "optional", "advanced", "default", "options")
    values = {name: getattr(port, name, None) for name in names}
    return {**values, "type": port.get_io_type()}


def constants(module) -> dict:
    """Choices of the schemas beside the core's own."""
    from importlib import import_module

    name = module.__name__
    schemas = import_module(f"{name}.nodes._schema")
    precision = import_module(f"{name}.oasis_core.upscale.precision")
    return {
        "dtypes": [list(schemas.DTYPES), ["auto", *precision.DTYPES]],
        "codecs": [
            list(import_module(f"{name}.nodes._encoding").codec_names()),
            list(import_module(f"{name}.oasis_core.video").CODECS),
        ],
        "presets": [
            list(schemas.PRESETS),
            list(import_module(f"{name}.oasis_core.degradation").PRESETS),
        ],
        "layouts": [
            list(schemas.LAYOUTS),
            list(import_module(f"{name}.oasis_core.evaluation.clip_scores").LAYOUTS),
        ],
        "detail": [
            [import_module(f"{name}.nodes.load_model").DEFAULT_DETAIL],
            [import_module(f"{name}.oasis_core.checkpoint").DEFAULT_DETAIL],
        ],
        "models": [
            list(import_module(f"{name}.nodes._adapters.folders").BUNDLED),
            list(import_module(f"{name}.oasis_core.checkpoint").BUNDLED),
        ],
    }


def replacements(module) -> dict | None:
    """What ComfyUI's own list of replacements says after one node was renamed, if it has a list."""
    from importlib import import_module, util
    from types import SimpleNamespace

    renamed = import_module(f"{module.__name__}.nodes._renamed")
    values = {"old_node_id": "OASISOldName", "new_node_id": "OASISDegrade"}
    if util.find_spec("app.node_replace_manager") is None:
        assert asyncio.run(renamed.register_renamed([values])) == 0
        return None
    from app.node_replace_manager import NodeReplaceManager
    from server import PromptServer

    manager = NodeReplaceManager()
    PromptServer.instance = SimpleNamespace(node_replace_manager=manager)
    assert asyncio.run(renamed.register_renamed([values])) == 1
    del PromptServer.instance
    return manager.as_dict()


def poisoned_run(module) -> dict:
    """What the nodes upscale while the optional packages are broken, and after losing the model."""
    from importlib import import_module

    import comfy.model_management
    import torch

    def node(file, name):
        return getattr(import_module(f"{module.__name__}.nodes.{file}"), name)

    with torch.inference_mode():
        model = (
            node("load_model", "OASISLoadModel")
            .execute("oasis-tiny", "float32", "own", 0.75, False, False)
            .args[0]
        )
        images = torch.rand(2, 16, 16, 3)
        values = (images, "one clip", "by scale", 2.0, 1.0, 0, 0, True, 0, 0, True)
        upscale = node("upscale_images", "OASISUpscaleImages").execute
        first = upscale(model, *values).args[0]
        # As when other models are loaded: this asks for more memory than there is.
        gone = comfy.model_management.free_memory(1e30, model.patcher.load_device)
        again = upscale(model, *values).args[0]
    return {
        "shape": list(first.shape),
        "unloaded": len(gone),
        "is_same": torch.equal(first, again),
    }


if __name__ == "__main__":
    main(*sys.argv[1:])
