"""``manage.py channels``, called in this process, beside a Trio run that serves."""

from __future__ import annotations

import io
import json
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import trio
from django.core.management import call_command
from django.core.management.base import CommandError
from django.test import override_settings

from trio_channels._orders import orders
from trio_channels.inspector import Introduction, Overview, Queue, Report, Silent
from trio_channels.inspector.table import render
from trio_channels.layers import InMemoryChannelLayer
from trio_channels.layers.base import ChannelLayer
from trio_channels.layers.redis import RedisStreamsChannelLayer
from trio_channels.server.lifespan import CANNOT_START

from ..ports import free_port
from ..redis_server import RedisServer
from .test_overview import User, client

Use = Callable[[ChannelLayer], ChannelLayer]


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """As with the app in INSTALLED_APPS."""
    monkeypatch.setattr("trio_channels.management.commands.channels.apps.is_installed", lambda name: bool(name))


@contextmanager
def serving(layer: ChannelLayer) -> Iterator[None]:
    """In the block, a thread's Trio run serves one connection."""
    ready, end = threading.Event(), trio.Event()
    tokens: list[trio.lowlevel.TrioToken] = []

    async def serve() -> None:
        tokens.append(trio.lowlevel.current_trio_token())
        async with layer, orders(), client("/room/?token=secret", User()) as ws:
            await ws.connect()
            ready.set()
            await end.wait()

    thread = threading.Thread(target=trio.run, args=(serve,))
    thread.start()
    assert ready.wait(60)
    try:
        yield
    finally:
        tokens[0].run_sync_soon(end.set)
        thread.join()


@pytest.fixture
def redis(redis_server: RedisServer, default_layer: Use, request: pytest.FixtureRequest) -> ChannelLayer:
    prefix = f"command{id(request)}"
    return default_layer(RedisStreamsChannelLayer(hosts=[redis_server.url], prefix=prefix))


def run(*arguments: str, out: io.StringIO | None = None) -> str:
    out = out or io.StringIO()
    call_command("channels", *arguments, stdout=out)
    return out.getvalue()


def test_table_shows_processes_connections_and_groups(installed: None, redis: ChannelLayer) -> None:
    with serving(redis):
        text = run("--once")
    assert "1 process answered, 0 did not; 1 connections" in text
    assert [line.split()[0] for line in text.splitlines() if line.startswith(str(os.getpid()))] == [
        str(os.getpid())
    ] * 2
    assert "/room/?token=***" in text
    assert "secret" not in text
    assert "ada" in text
    assert "room   default" in text


def test_json_is_for_scripts(installed: None, redis: ChannelLayer) -> None:
    with serving(redis):
        seen = json.loads(run("--json", "--find", "ada"))
        other = json.loads(run("--json", "--find", "grace"))
        members = json.loads(run("--json", "--group", "room"))
    assert seen["reports"][0]["process"]["pid"] == os.getpid()
    assert [row["username"] for row in seen["reports"][0]["connections"]] == ["ada"]
    assert (seen["silent"], seen["shared"], seen["problem"]) == ([], True, "")
    assert other["reports"][0]["found"] == 0
    assert members["reports"][0]["found"] == 1


class Terminal(io.StringIO):
    """Sends Ctrl-C when the table has been shown twice."""

    shown = 0

    def isatty(self) -> bool:
        return True

    def write(self, text: str) -> int:
        written = super().write(text)
        self.shown += "\x1b[2J" in text
        if self.shown == 2:
            signal.raise_signal(signal.SIGINT)
        return written


def test_terminal_is_renewed_until_ctrl_c(installed: None, redis: ChannelLayer) -> None:
    terminal = Terminal()
    with serving(redis):
        run("--interval", "0.01", "--rows", "1", out=terminal)
    assert terminal.getvalue().count("1 process answered") == 2


def test_processes_do_not_answer_without_the_app() -> None:
    with pytest.raises(CommandError, match="in INSTALLED_APPS") as refused:
        run("--once")
    assert refused.value.returncode == CANNOT_START


@pytest.mark.parametrize("layers", [{}, {"default": {"BACKEND": "trio_channels.layers.InMemoryChannelLayer"}}])
def test_layer_that_connects_no_processes_is_refused(installed: None, layers: Any, default_layer: Use) -> None:
    with override_settings(CHANNEL_LAYERS=layers):
        if layers:
            default_layer(InMemoryChannelLayer())
        with pytest.raises(CommandError, match="expected a channel layer that connects processes") as refused:
            run("--once")
    assert refused.value.returncode == CANNOT_START


@pytest.mark.parametrize("arguments", [("--interval", "0"), ("--rows", "0")])
def test_impossible_options_are_refused(installed: None, arguments: tuple[str, str], redis: ChannelLayer) -> None:
    with pytest.raises(CommandError, match=f"{arguments[0]} must be") as refused:
        run(*arguments)
    assert refused.value.returncode == CANNOT_START


def test_redis_that_is_away_is_an_error(installed: None, default_layer: Use) -> None:
    default_layer(RedisStreamsChannelLayer(hosts=[f"redis://127.0.0.1:{free_port()}"], timeout=0.2))
    with pytest.raises(CommandError, match="The channel layer is away"):
        run("--json")


def test_silent_processes_and_queues_are_in_the_table() -> None:
    stopped = Introduction("x", 4711, "web1", "worker", 1.0)
    figures = {"status": "ok", "layers": {"default": {"healthy": False}}, "connections": {}}
    seen = Overview(
        [Report(Introduction("y", 12, "web2", "server", 1.0), figures, [], 0, [], 0, [])],
        [Silent(stopped, lost=True)],
        [Queue("default", "jobs", 5, 2, [], 1, 1), Queue("default", "images", None, None, [], 0, 0)],
        False,
        "The layer is away.",
    )
    text = render(seen, rows=5, width=60)
    assert "1 process answered, 1 did not" in text
    assert "The layer is away." in text
    assert "4711  web1  worker  did not answer, forgotten by the layer" in text
    assert "jobs    default  5" in text
    assert "images  default  ?" in text
    assert max(map(len, text.splitlines())) <= 60
