"""The package's shape: three bands, each importing only itself and those above it.

Every module must be given a band here. A is pure and needs the standard library only; B is Trio; C is the edge to
Django, asgiref and hypercorn. What stands under BORDERS is the one place where a foreign package is let in further up.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import trio_channels

ROOT = Path(trio_channels.__file__).parent

BANDS: dict[str, str] = {
    # -- A: pure
    "_asgi": "A",
    "_class_checks": "A",
    "_counters": "A",
    "_gap": "A",
    "_groups": "A",
    "_handlers": "A",
    "_last_resort": "A",
    "_limits": "A",
    "_names": "A",
    "_refusal": "A",
    "exceptions": "A",
    "log": "A",
    "middleware": "A",
    "proxy_headers": "A",
    # -- B: Trio
    "": "B",
    "_affinity": "B",
    "_background": "B",
    "_bell": "B",
    "_census": "B",
    "_codec": "B",
    "_connection": "B",
    "_context": "B",
    "_dispatch": "B",
    "_envelope": "B",
    "_event_queue": "B",
    "_mailbox": "B",
    "_on_demand": "B",
    "_outage": "B",
    "_outbox": "B",
    "_park": "B",
    "_supervise": "B",
    "_threads": "B",
    "_work": "B",
    "_worker_channel": "B",
    "_worker_thread": "B",
    "abc": "B",
    "layers._hub": "B",
    "layers._local": "B",
    "layers._memory_work": "B",
    "layers.memory": "B",
    "layers.redis.*": "B",
    "websocket": "B",
    # -- C: Django's edge
    "_conf": "C",
    "_development": "C",
    "_hardening": "C",
    "_lifespan": "C",
    "_transactions": "C",
    "_workers": "C",
    "_neutral": "C",
    "_recheck": "C",
    "apps": "C",
    "asgi": "C",
    "auth": "C",
    "bridge.*": "C",
    "checks": "C",
    "consumer": "C",
    "db": "C",
    "generic.*": "C",
    "handlers.*": "C",
    "staticfiles": "C",
    "health": "C",
    "hypercorn.*": "C",
    "__main__": "C",
    "layers": "C",
    "management.*": "C",
    "routing": "C",
    "runner.*": "C",
    "security.*": "C",
    "sessions": "C",
    "sync": "C",
    "testing.*": "C",
    "upgrade.*": "C",
    "worker": "C",
}

PACKAGES = {
    "A": set[str](),
    "B": {"trio", "outcome", "sniffio", "hiredis", "msgspec"},
    "C": {"trio", "outcome", "sniffio", "hiredis", "msgspec", "django", "asgiref", "hypercorn"},
}

BORDERS = {
    "_context": {"asgiref"},  # the context variables of asgiref's Local
    # What hypercorn is made of.
    "hypercorn._blame": {"h11", "h2", "priority", "wsproto"},
    "hypercorn._frames": {"wsproto"},
    "hypercorn._http1": {"h11"},
    "hypercorn._http2": {"h2", "priority"},
    "hypercorn._websocket": {"wsproto"},
    "layers.redis._entry": {"cryptography"},  # an extra, imported where a key is configured
    "testing.pytest_plugin": {"pytest"},
}

SOURCES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix("__init__").removesuffix("."): path
    for path in sorted(ROOT.rglob("*.py"))
}


def band_of(module: str) -> str | None:
    """A module's band: its own, or that of the nearest package that is given whole."""
    if module in BANDS:
        return BANDS[module]
    parts = module.split(".")
    wildcards = (".".join([*parts[:length], "*"]) for length in range(len(parts), 0, -1))
    return next((BANDS[wildcard] for wildcard in wildcards if wildcard in BANDS), None)


def imports(module: str) -> Iterator[str]:
    """The full names of what a module imports, wherever in it the import stands."""
    path = SOURCES[module]
    package = ["trio_channels", *module.split(".")] if module else ["trio_channels"]
    if path.name != "__init__.py":
        package.pop()
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            origin = ".".join([*base, *(node.module or "").split(".")]).rstrip(".")
            for alias in node.names:
                # `from . import _names` imports a module, `from ._names import check` a name out of one.
                submodule = f"{origin}.{alias.name}"
                yield submodule if submodule.removeprefix("trio_channels.") in SOURCES else origin


@pytest.mark.parametrize("module", SOURCES)
def test_a_module_has_a_band(module: str) -> None:
    assert band_of(module) is not None, f"give {module!r} a band in BANDS"


@pytest.mark.parametrize("module", SOURCES)
def test_a_module_imports_its_own_band_and_those_above(module: str) -> None:
    band = band_of(module)
    assert band is not None
    for name in imports(module):
        top = name.partition(".")[0]
        if top == "trio_channels":
            other = band_of(name.removeprefix("trio_channels").removeprefix("."))
            assert other is not None, f"{name} has no band"
            assert other <= band, f"{module} is in band {band}, {name} in {other}"
        elif top not in sys.stdlib_module_names:
            assert top in PACKAGES[band] | BORDERS.get(module, set()), f"{module}, in band {band}, imports {name}"


@pytest.mark.parametrize("module", SOURCES)
def test_a_module_does_not_import_asyncio(module: str) -> None:
    assert "asyncio" not in {name.partition(".")[0] for name in imports(module)}


@pytest.mark.parametrize("module", SOURCES)
def test_a_module_has_no_assert_statement(module: str) -> None:
    tree = ast.parse(SOURCES[module].read_bytes())
    assert [node.lineno for node in ast.walk(tree) if isinstance(node, ast.Assert)] == []


def test_what_is_given_a_border_exists() -> None:
    assert set(BORDERS) <= set(SOURCES)


def test_imports_are_found_wherever_they_stand() -> None:
    assert {"trio_channels._names", "trio_channels._codec", "trio", "functools"} <= set(imports("layers.memory"))
    assert "trio_channels.exceptions" in set(imports(""))
