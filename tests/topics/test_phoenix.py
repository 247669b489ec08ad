"""The client ``phoenix`` from npm, unmodified, in Node, over WebSocket and long-polling. npm installs it.

``phoenix_scenarios.mjs`` has what it does.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import trio
from django.test import override_settings
from django.urls import path

from trio_channels.layers import InMemoryChannelLayer
from trio_channels.routing import ProtocolTypeRouter, URLRouter
from trio_channels.topics import LongPolling, Topic, TopicSocket, event

from ..process import SAFETY
from ..server.clients import OURS, serving
from .rooms import Room

pytestmark = [pytest.mark.clients, pytest.mark.slow]

VERSION = "1.8.16"
SCRIPT = Path(__file__).with_name("phoenix.mjs")
SCENARIOS = re.findall(r"^  async (\w+)\(\)", SCRIPT.with_name("phoenix_scenarios.mjs").read_text(), re.MULTILINE)
#: Those of WebSockets only: by long-polling the client sends no heartbeats, and the fallback begins with a WebSocket.
OF_WEBSOCKETS = {"heartbeats", "fallback"}
CASES = [
    *((scenario, "websocket") for scenario in SCENARIOS),
    *((scenario, "longpoll") for scenario in SCENARIOS if scenario not in OF_WEBSOCKETS),
]


class Lobby(Room):
    gate = trio.Event()

    @event("wait")
    async def wait(self, payload: Any) -> None:
        await self.gate.wait()

    @event("open")
    async def open_the_gate(self, payload: Any) -> None:
        self.gate.set()

    @event("tell.binary")
    async def tell_binary(self, payload: bytes) -> None:
        await self.broadcast_from("binary", payload)

    @event("close.socket")
    async def close_socket(self, payload: Any) -> None:
        await self.socket.close(4000)

    @event("who")
    async def who(self, payload: Any) -> dict[str, Any]:
        return {"token": self.socket.auth_token, "user": self.socket.params["user"]}


class Slow(Topic):
    pattern = "slow:<slug:name>"

    async def join(self, params: Any) -> None:
        await Lobby.gate.wait()


class Here(Topic):
    pattern = "here:<slug:name>"
    shows_presence = True

    async def join(self, params: dict[str, Any]) -> None:
        await self.track(params["key"], params.get("meta"))


class Kept(Topic):
    pattern = "kept:<slug:name>"

    @event("tell")
    async def tell(self, payload: Any) -> None:
        await self.broadcast("told", payload)


@pytest.fixture(scope="session")
def phoenix(request: pytest.FixtureRequest) -> Path:
    """The module of the client."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        pytest.skip("needs node and npm, for the client phoenix")
    assert request.config.cache is not None
    folder = request.config.cache.mkdir(f"phoenix-{VERSION}")
    module = folder / "node_modules" / "phoenix" / "priv" / "static" / "phoenix.mjs"
    if not module.exists():
        options = ["--no-audit", "--no-fund", "--ignore-scripts", "--prefix", str(folder)]
        done = subprocess.run(
            ["npm", "install", *options, f"phoenix@{VERSION}"], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
    return module


def node() -> list[str]:
    """The command, with WebSockets: before version 22 they are an option."""
    version = subprocess.run(["node", "--version"], capture_output=True, text=True, check=True).stdout
    return ["node", *(["--experimental-websocket"] if int(version[1:].partition(".")[0]) < 22 else [])]


def application(*, blocks_websockets: bool = False) -> ProtocolTypeRouter:
    """Topics at ``/socket``, over both transports."""
    layer = InMemoryChannelLayer(history={"topic.kept.*": {"messages": 100, "seconds": 60}})
    cls: Any = type("Socket", (TopicSocket,), {"channel_layer": layer})
    websocket = URLRouter([path("socket/websocket", cls.as_asgi(topics=[Lobby, Slow, Here, Kept]))])
    return ProtocolTypeRouter(
        {
            "http": URLRouter([path("socket/longpoll", LongPolling(websocket))]),
            "websocket": URLRouter([]) if blocks_websockets else websocket,
        }
    )


@pytest.mark.parametrize(("scenario", "transport"), CASES)
async def test_client_of_npm(scenario: str, transport: str, phoenix: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Lobby, "gate", trio.Event())
    served = application(blocks_websockets=scenario == "fallback")
    # A client that leaves says nothing over long-polling.
    with override_settings(TRIO_CHANNELS={"LONG_POLL_TIMEOUT": 3.0 if scenario == "presence" else 15.0}):
        async with serving(OURS, served) as server:
            command = [*await trio.to_thread.run_sync(node), str(SCRIPT), str(phoenix), str(server.port)]
            with trio.fail_after(SAFETY):
                done = await trio.run_process(
                    [*command, scenario, transport], capture_stdout=True, capture_stderr=True, check=False
                )
    assert (done.stdout.decode(), done.returncode) == ("passed\n", 0), done.stderr.decode()


def test_every_scenario_is_run() -> None:
    assert len(SCENARIOS) > 15
    assert set(SCENARIOS) >= OF_WEBSOCKETS
