"""The package's shape: three bands, each importing only itself and those above it.

Every module must be given a band here. A is pure and needs the standard library only; B is Trio; C is the edge to
Django, asgiref and hypercorn. Only a module in BORDERS may import more: the packages beside its name.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import pytest

import trio_channels

ROOT = Path(trio_channels.__file__).parent

#: A module's band. "package.*" is the band of a package, and of each of its modules that is not named.
BANDS: dict[str, str] = {
    # -- A: pure
    "_asgi.*": "A",
    "_concurrency": "A",
    "_concurrency.nothing": "A",
    "_concurrency.system": "A",
    "_concurrency.watchdog": "A",
    "_limits": "A",
    "_tracing": "A",
    "consumer.handlers": "A",
    "exceptions": "A",
    "layers.names": "A",
    "log": "A",
    "compat.alias": "A",
    "compat.names": "A",
    "middleware": "A",
    "proxy_headers": "A",
    "utils": "A",
    # -- B: Trio
    "": "B",
    "_concurrency.*": "B",
    "_connection.*": "B",
    "_metrics.*": "B",
    "_threads": "B",
    "_threads.affinity": "B",
    "_threads.background": "B",
    "_threads.context": "B",
    "_threads.lease": "B",
    "_threads.pool": "B",
    "_threads.thread": "B",
    "_threads.waiting": "B",
    "client.*": "B",
    "layers.*": "B",
    "websocket": "B",
    "worker.channel": "B",
    # -- C: Django's edge
    "__main__": "C",
    "_conf": "C",
    "_http.*": "C",
    "_orders": "C",
    "_threads.database": "C",
    "_threads.neutral": "C",
    "_threads.transactions": "C",
    "apps": "C",
    "asgi": "C",
    "auth.*": "C",
    "bridge.*": "C",
    "checks": "C",
    "closing": "C",
    "compat.*": "C",
    "consumer": "C",
    "consumer.base": "C",
    "consumer.groups": "C",
    "consumer.presence": "C",
    "db": "C",
    "event_stream.*": "C",
    "event_stream.following": "B",
    "event_stream.messages": "B",
    "event_stream.positions": "A",
    "event_stream.wire": "A",
    "generic.*": "C",
    "health": "C",
    "inspector.*": "C",
    "layers": "C",
    "lifespan": "C",
    "management.*": "C",
    "metrics.*": "C",
    "new": "C",
    "on_commit": "C",
    "outbox.*": "C",
    "routing": "C",
    "runner.*": "C",
    "security.*": "C",
    "server.*": "C",
    "sessions": "C",
    "staticfiles": "C",
    "templatetags.*": "C",
    "sync": "C",
    "upgrade.*": "C",
    "testing.*": "C",
    "tracing": "C",
    "topics.*": "C",
    "topics.long_polling.*": "C",
    "topics.frames": "B",
    "topics.handlers": "B",
    "topics.payloads": "B",
    "worker": "C",
}

PACKAGES = {
    "A": set[str](),
    "B": {"trio", "outcome", "sniffio", "hiredis", "msgspec"},
    "C": {"trio", "outcome", "sniffio", "hiredis", "msgspec", "django", "asgiref", "hypercorn"},
}

BORDERS = {
    "client.transport": {"trio_websocket"},  # an extra, imported by those that use the client
    "_threads.context": {"asgiref"},  # the context variables of asgiref's Local
    "metrics.application": {"prometheus_client"},  # an extra, imported when an application is made
    "layers.redis.codec": {"cryptography"},  # an extra, imported where a key is configured
    # hypercorn's own dependencies.
    "server.tasks": {"h11", "h2", "priority", "wsproto"},
    "server.frames": {"wsproto"},
    "server.handshake": {"h11", "wsproto"},
    "server.http1": {"h11"},
    "server.http2.draining": {"h2", "hyperframe"},
    "server.http2.floods": {"h2"},
    "server.http2.protocol": {"h2", "hpack"},
    "server.http2.sending": {"h2", "priority"},
    "server.plain": {"h11"},
    "server.request_head": {"h11"},
    "server.timing": {"wsproto"},
    "server.websocket": {"wsproto"},
    "server.websocket_reader": {"wsproto"},
    "testing.pytest_plugin": {"pytest"},
    # An extra; only a command imports these modules.
    **{
        f"upgrade.{name}": {"libcst"}
        for name in (
            *("__main__", "calls", "decisions", "imports", "pytest_marks"),
            *("qualified", "queues", "settings", "source"),
        )
    },
    # An extra, imported by compat.install() and by the modules that stand for those of Channels.
    "compat.crossing": {"trio_asyncio"},
    "compat.loops": {"trio_asyncio"},
    "compat.pytest_plugin": {"pytest"},
    "tracing": {"opentelemetry"},  # an extra, imported when tracing is enabled
}

#: Circles of modules and packages at the top that import one another. There must be none.
CYCLES: set[frozenset[str]] = set()

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


def nodes_of(tree: ast.AST) -> Iterator[ast.AST]:
    """All nodes of a tree, without those under ``if TYPE_CHECKING``."""
    yield tree
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            for other in node.orelse:
                yield from nodes_of(other)
        else:
            yield from nodes_of(node)


def imports(module: str, nodes: Iterable[ast.AST] | None = None) -> Iterator[str]:
    """The full names of a module's imports, wherever in the module they stand."""
    path = SOURCES[module]
    package = ["trio_channels", *module.split(".")] if module else ["trio_channels"]
    if path.name != "__init__.py":
        package.pop()
    for node in ast.walk(ast.parse(path.read_bytes())) if nodes is None else nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            origin = ".".join([*base, *(node.module or "").split(".")]).rstrip(".")
            for alias in node.names:
                # `from . import names` imports a module, `from .names import check` a name out of one.
                submodule = f"{origin}.{alias.name}"
                yield submodule if submodule.removeprefix("trio_channels.") in SOURCES else origin


def top(name: str) -> str:
    """The module or package at the top that holds a module."""
    return name.removeprefix("trio_channels").removeprefix(".").partition(".")[0]


def graph() -> dict[str, set[str]]:
    """The imports from each module or package at the top to the others, at run time."""
    arrows: dict[str, set[str]] = {top(module): set() for module in SOURCES}
    for module, path in SOURCES.items():
        names = imports(module, nodes_of(ast.parse(path.read_bytes())))
        arrows[top(module)] |= {top(name) for name in names if name.partition(".")[0] == "trio_channels"} - {
            top(module)
        }
    return arrows


def reached(start: str, arrows: Mapping[str, set[str]]) -> set[str]:
    found: set[str] = set()
    ahead = set(arrows[start])
    while ahead:
        found |= ahead
        ahead = {end for node in ahead for end in arrows[node]} - found
    return found


def cycles(arrows: Mapping[str, set[str]]) -> set[frozenset[str]]:
    after = {node: reached(node, arrows) for node in arrows}
    return {frozenset(other for other in after[node] if node in after[other]) for node in arrows if node in after[node]}


@pytest.mark.parametrize("module", SOURCES)
def test_module_has_a_band(module: str) -> None:
    assert band_of(module) is not None, f"give {module!r} a band in BANDS"


@pytest.mark.parametrize("module", SOURCES)
def test_module_imports_its_own_band_and_those_above(module: str) -> None:
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
def test_module_does_not_import_asyncio(module: str) -> None:
    assert "asyncio" not in {name.partition(".")[0] for name in imports(module)}


@pytest.mark.parametrize("module", SOURCES)
def test_module_has_no_assert_statement(module: str) -> None:
    tree = ast.parse(SOURCES[module].read_bytes())
    assert [node.lineno for node in ast.walk(tree) if isinstance(node, ast.Assert)] == []


def test_every_module_that_is_named_exists() -> None:
    packages = {module for module, path in SOURCES.items() if path.name == "__init__.py"}
    assert {name.removesuffix(".*") for name in BANDS if name.endswith(".*")} <= packages
    assert {name for name in BANDS if not name.endswith(".*")} <= set(SOURCES)
    assert set(BORDERS) <= set(SOURCES)


def test_no_import_goes_round_in_a_circle() -> None:
    assert cycles(graph()) == CYCLES


def test_circle_of_imports_is_found() -> None:
    assert cycles({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": {"a"}}) == {frozenset({"b", "c"})}


def test_imports_are_found_wherever_they_stand() -> None:
    names = set(imports("layers.memory"))
    assert {"trio_channels.layers.names", "trio_channels.layers.message", "trio", "functools"} <= names
    assert "trio_channels.exceptions" in set(imports(""))
