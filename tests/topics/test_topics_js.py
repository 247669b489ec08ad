"""The client ``topics.js`` in Node: see the scenarios in ``js``."""

from __future__ import annotations

import gzip
import importlib
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import trio

import trio_channels
from trio_channels.layers import InMemoryChannelLayer
from trio_channels.layers.base import ChannelLayer
from trio_channels.routing import ProtocolTypeRouter
from trio_channels.topics import LongPolling, Topic, event

from ..clients.application import HISTORY, TOPICS, Socket
from ..clients.node import run_script
from ..server.clients import OURS, serving

JS = Path(__file__).with_name("js")
MODULE = Path(trio_channels.__file__).parent / "static" / "trio_channels" / "topics.js"
FALLBACK = MODULE.with_name("topics-sse.js")
DOCS = Path(__file__).parents[2] / "docs"
MOST_BYTES = 10 * 1024

needs_node = pytest.mark.skipif(shutil.which("node") is None, reason="needs node, for the client topics.js")


def scenarios(file: str) -> list[str]:
    return re.findall(r"^  async (\w+)\(\)", (JS / file).read_text(), re.MULTILINE)


class Once(Topic):
    """Adds each number once, although it may come twice; the first one ends the connection."""

    pattern = "once:<slug:name>"
    numbers: list[int]
    ids: set[str]

    @event("add")
    async def add(self, payload: dict[str, Any]) -> dict[str, int]:
        number, known = payload["n"], payload.get("push_id")
        if known not in self.ids:
            self.ids.update({known} if known else ())
            self.numbers.append(number)
        if number == 1:
            await self.socket.close(1012)
        return {"n": number}

    @event("handled")
    async def handled(self, payload: Any) -> list[int]:
        return self.numbers


@needs_node
@pytest.mark.clients
@pytest.mark.slow
@pytest.mark.parametrize("transport", ["websocket", "sse"])
@pytest.mark.parametrize("scenario", scenarios("live.mjs"))
async def test_live(scenario: str, transport: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Once, "numbers", [], raising=False)
    monkeypatch.setattr(Once, "ids", set(), raising=False)
    layer = InMemoryChannelLayer(history=HISTORY)
    cls: Any = type("OnceSocket", (Socket,), {"channel_layer": layer, "gate": trio.Event()})
    websocket = cls.as_asgi(topics=[*TOPICS, Once])
    application = ProtocolTypeRouter({"http": LongPolling(websocket), "websocket": websocket})
    async with serving(OURS, application) as server:
        await run_script(JS / "live.mjs", server.port, scenario, transport)


@needs_node
@pytest.mark.clients
@pytest.mark.slow
@pytest.mark.parametrize(
    ("script", "scenario"),
    [(script, name) for script in ("scripted.mjs", "fallback.mjs", "stream.mjs") for name in scenarios(script)],
)
async def test_scripted(script: str, scenario: str) -> None:
    await run_script(JS / script, scenario)


@needs_node
@pytest.mark.clients
@pytest.mark.slow
async def test_page_of_the_documentation(
    tmp_path: Path, channel_layer: ChannelLayer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(DOCS / "snippets"))
    rooms = importlib.import_module("rooms")
    del sys.modules["rooms"]
    application = ProtocolTypeRouter({"websocket": rooms.application})
    page = tmp_path / "room.mjs"
    page.write_text((DOCS / "snippets" / "room.js").read_text().replace('"topics"', repr(MODULE.as_uri())))
    async with serving(OURS, application) as server:
        await run_script(JS / "page.mjs", page, server.port)


def test_reference_has_every_name() -> None:
    types = MODULE.with_suffix(".d.ts").read_text()
    declared = re.findall(r"^(?:export (?:class|function)|  (?:readonly )?)\s*(\w+)[ ?(<:]", types, re.MULTILINE)
    names = set(declared) - {"constructor", "event", "options", "key", "readonly"}
    assert {"Socket", "topic", "queue", "phx_ref", "backOff", "onChange", "recovered"} <= names
    page = (DOCS / "reference" / "topics-js.md").read_text()
    assert {name for name in names if not re.search(rf"\b{name}\b", page)} == set()


def test_module_is_small() -> None:
    assert len(gzip.compress(MODULE.read_bytes(), mtime=0)) <= MOST_BYTES


def imports(module: Path) -> list[str]:
    return re.findall(r"^import\b.*|\bimport\([^)]*\)|\brequire\(", module.read_text(), re.MULTILINE)


def test_module_has_no_dependencies() -> None:
    assert imports(MODULE) == ['import("./topics-sse.js")']
    assert imports(FALLBACK) == []


def test_every_scenario_is_run() -> None:
    assert len(scenarios("live.mjs")) > 30
    assert len(scenarios("scripted.mjs")) > 30
    assert len(scenarios("fallback.mjs")) > 12
    assert len(scenarios("stream.mjs")) > 12
