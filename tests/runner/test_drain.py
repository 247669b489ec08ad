"""SIGTERM with a thousand clients, of which twenty do not read and twenty are in the ORM."""

from __future__ import annotations

import os
import signal
import sqlite3
from collections import Counter
from collections.abc import Callable
from contextlib import AsyncExitStack, closing
from pathlib import Path

import pytest
import trio

from ..process import allow_descriptors, program
from .clients import RawClient, connected
from .serving import APPLICATION

pytestmark = [pytest.mark.faults, pytest.mark.time_limit(240)]

CLIENTS, DEAF, WRITING = 1_000, 20, 20

#: Seconds that the server has to end by itself.
GRACE = 3

RUNNER = ("-m", "trio_channels", "serve")
HYPERCORN = ("-m", "hypercorn", "--worker-class", "trio")


@pytest.fixture(autouse=True)
def descriptors() -> None:
    """A thousand sockets need as many descriptors, here and there."""
    allow_descriptors(2 * CLIENTS + 100)


def terminate(pid: int) -> None:
    """As a supervisor does."""
    os.kill(pid, signal.SIGTERM)


def interrupt(pid: int) -> None:
    """As a terminal does: everybody gets it."""
    os.killpg(pid, signal.SIGINT)


@pytest.mark.parametrize(
    ("command", "send", "clients"),
    [
        pytest.param((*RUNNER, "--workers=1"), terminate, CLIENTS, id="one process"),
        pytest.param((*RUNNER, "--workers=2"), terminate, CLIENTS, id="two processes"),
        pytest.param((*RUNNER, "--workers=2"), interrupt, 200, id="200 clients of two processes, Ctrl-C"),
        pytest.param((*HYPERCORN, "--workers=1"), terminate, CLIENTS, id="plain hypercorn"),
    ],
)
async def test_all_who_read_are_told_1012_and_everything_ends_in_order(
    command: tuple[str, ...], send: Callable[[int], None], clients: int, tmp_path: Path
) -> None:
    (tmp_path / "config.toml").write_text(f'graceful_timeout = {GRACE}\nbacklog = 1000\nbind = "127.0.0.1:0"\n')
    database = str(tmp_path / "db.sqlite3")
    with closing(sqlite3.connect(database)) as tables, tables:
        tables.execute("CREATE TABLE django_content_type (id INTEGER PRIMARY KEY, app_label TEXT, model TEXT)")
        tables.execute("INSERT INTO django_content_type (app_label, model) VALUES ('first', 'row')")
    async with (
        program(
            *command,
            f"--config={tmp_path}/config.toml",
            APPLICATION,
            DJANGO_SETTINGS_MODULE="tests.runner.settings",
            TESTS_DATABASE=database,
        ) as server,
        AsyncExitStack() as sockets,
        trio.open_nursery() as nursery,
    ):
        port = await server.port()
        ready, codes = Counter[str](), Counter[int | None]()
        all_ready = trio.Event()
        enough_at_a_time = trio.CapacityLimiter(100)

        async def client(number: int) -> None:
            kind = "deaf" if number < DEAF else "writing" if number < DEAF + WRITING else "echo"
            async with enough_at_a_time:
                stream = await connected(port, receive_buffer=4096 if kind == "deaf" else None)
                await sockets.enter_async_context(stream)
                raw = RawClient(stream)
                await raw.shake_hands(f"/{kind}/")
                await raw.say(f"{number}")
                if kind != "deaf":
                    await raw.hear()
                ready[kind] += 1
                if ready.total() == clients:
                    all_ready.set()
            if kind != "deaf":
                codes[await raw.close_code()] += 1

        for number in range(clients):
            nursery.start_soon(client, number)
        await all_ready.wait()
        await server.said("sends without end", times=DEAF)
        await server.said("Running on", times=2 if "--workers=2" in command else 1)
        send(server.process.pid)
        assert await server.ends() == 0
    assert codes == {1012: clients - DEAF}
    assert server.text.count("disconnected ") == clients
    assert "Traceback" not in server.text, server.text.partition("Traceback")[2]
    with closing(sqlite3.connect(database)) as tables:
        written = tables.execute("SELECT count(*) FROM django_content_type WHERE app_label = 'drain'")
        assert written.fetchone() == (WRITING,)
