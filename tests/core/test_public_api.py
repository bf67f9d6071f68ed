"""Names and arguments that programs outside rely on, against a stored list.

Nothing stored may go or change its default; more may come. The stored file was made by this one,
`python tests/core/test_public_api.py`.
"""

import importlib
import inspect
import json
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
STORED = Path(__file__).with_name("public_api.json")
MODULES = ("oasis_core", "oasis_core.upscale", "oasis_core.video")


def arguments(thing):
    """Name -> kind and default of a callable's arguments."""
    found = {}
    for name, parameter in inspect.signature(thing).parameters.items():
        default = parameter.default
        has_name = inspect.isclass(default) or inspect.isroutine(default)
        text = "required" if default is parameter.empty else "..." if has_name else repr(default)
        found[name] = f"{parameter.kind.name.lower()}: {text}"
    return found


def describe(thing):
    if inspect.isclass(thing) and issubclass(thing, Exception):
        return {"error": [base.__name__ for base in thing.__mro__]}
    if inspect.isclass(thing):
        names = sorted(n for n in vars(thing) if not n.startswith("_"))
        methods = {n: getattr(thing, n) for n in names if inspect.isroutine(getattr(thing, n))}
        return {
            "class": arguments(thing),
            "methods": {name: arguments(method) for name, method in methods.items()},
            "properties": [n for n in names if isinstance(vars(thing)[n], property)],
        }
    if inspect.isroutine(thing):
        return {"function": arguments(thing)}
    return {"value": type(thing).__name__}


def public(module):
    loaded = importlib.import_module(module)
    return {name: describe(getattr(loaded, name)) for name in sorted(loaded.__all__)}


def assert_still_there(stored, found, place):
    if isinstance(stored, dict):
        assert not set(stored) - set(found), (place, sorted(set(stored) - set(found)))
        for name, value in stored.items():
            assert_still_there(value, found[name], f"{place}.{name}")
    elif place.endswith((".properties", ".error")):
        assert set(stored) <= set(found), place
    else:
        assert stored == found, place


@pytest.mark.parametrize("module", MODULES)
def test_what_was_public_stays_as_it_was(module):
    stored = json.loads(STORED.read_text())[module]
    assert_still_there(stored, json.loads(json.dumps(public(module))), module)


if __name__ == "__main__":
    STORED.write_text(json.dumps({m: public(m) for m in MODULES}, indent=1) + "\n")
