"""The chat as ``serve_redis.py`` runs it: two server processes, one database, one Redis."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
from trio_websocket import WebSocketConnection, wrap_client_stream

from ..ports import free_port
from ..redis_server import needs_redis

pytestmark = [pytest.mark.faults, needs_redis]

ROOT = Path(__file__).parents[2]
SERVE = ROOT / "examples" / "chat" / "serve_redis.py"
#: Seconds; only a test that fails waits as long.
PATIENCE = 120.0


class Runner:
    """``serve_redis.py`` as a process, and what it has printed.

    Attributes:
        pids: the processes of the servers, by port; a new one when a server was started again.
    """

    def __init__(self, process: trio.Process) -> None:
        self.process = process
        self.output = ""
        self.pids: dict[int, list[int]] = {}

    async def read(self) -> None:
        """Read what it prints, until its end."""
        assert self.process.stdout is not None
        async for part in self.process.stdout:
            self.output += part.decode()
            self.pids = {}
            for port, pid in re.findall(r"The chat is on http://127\.0\.0\.1:(\d+)/ +\(process (\d+)\)\n", self.output):
                self.pids.setdefault(int(port), []).append(int(pid))


@asynccontextmanager
async def running(database: Path, port: int) -> AsyncIterator[Runner]:
    """The example, stopped as by Ctrl-C at the end of the block; it must then end in order."""
    environment = os.environ | {
        "CHAT_DATABASE": str(database),
        "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
    }
    command = [sys.executable, str(SERVE), str(port)]
    process = await trio.lowlevel.open_process(command, env=environment, stdout=-1, stderr=-2)
    runner = Runner(process)
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(runner.read)
            yield runner
            process.send_signal(signal.SIGINT)
    finally:
        with trio.CancelScope(shield=True):
            process.terminate()  # nothing, in the good case: it has ended
            await process.wait()
    assert process.returncode == 0, runner.output
    assert runner.output.endswith("Stopped.\n")
    assert "Traceback" not in runner.output


class Page:
    """A page in the room ``garden``, without the browser; what comes is read one by one."""

    def __init__(self, connection: WebSocketConnection) -> None:
        self._connection = connection

    async def say(self, text: str) -> None:
        await self._connection.send_message(json.dumps({"message": text}))

    async def next(self, kind: str) -> dict[str, Any]:
        """The next event of a kind; others are passed over."""
        while True:
            event: dict[str, Any] = json.loads(await self._connection.get_message())
            if event["kind"] == kind:
                return event


@asynccontextmanager
async def page(port: int) -> AsyncIterator[Page]:
    """Open a page; the server may still be starting."""
    while True:
        try:
            stream = await trio.open_tcp_stream("127.0.0.1", port)
        except OSError:
            await trio.sleep(0.05)
        else:
            break
    host, path = f"127.0.0.1:{port}", "/ws/chat/garden/"
    headers = [(b"origin", f"http://{host}".encode())]
    async with (
        trio.open_nursery() as nursery,
        stream,
        await wrap_client_stream(nursery, stream, host, path, extra_headers=headers) as connection,
    ):
        yield Page(connection)


def names(people: list[dict[str, Any]]) -> set[str]:
    return {person["id"] for person in people}


@pytest.mark.time_limit(120)
async def test_two_servers_share_people_and_outlive_a_kill(tmp_path: Path) -> None:
    first = free_port(1)
    second = first + 1
    with trio.fail_after(PATIENCE):
        async with running(tmp_path / "chat.sqlite3", first) as runner, page(first) as ada:
            me = (await ada.next("welcome"))["you"]
            async with page(second) as tom:
                welcome = await tom.next("welcome")
                assert names(welcome["people"]) == {me["id"], welcome["you"]["id"]}
                assert (await ada.next("joined"))["who"] == welcome["you"]
                await ada.say("Can you hear me over there?")
                assert (await tom.next("message"))["message"] == "Can you hear me over there?"
                await tom.say("Loud and clear.")
                assert (await ada.next("message"))["who"] == me
                assert (await ada.next("message"))["who"] == welcome["you"]

                os.kill(runner.pids[second][0], signal.SIGKILL)
                # Nobody said goodbye: the other server's people notice by themselves.
                assert (await ada.next("left"))["who"] == welcome["you"]
            await ada.say("Are you still there?")

            async with page(second) as tom:
                welcome = await tom.next("welcome")
                assert len(runner.pids[second]) == 2
                said = [message["message"] for message in welcome["history"]]
                assert said == ["Can you hear me over there?", "Loud and clear.", "Are you still there?"]
                assert names(welcome["people"]) == {me["id"], welcome["you"]["id"]}
                assert (await ada.next("joined"))["who"] == welcome["you"]
                await tom.say("I am back.")
                while (await ada.next("message"))["message"] != "I am back.":
                    pass
            assert (await ada.next("left"))["who"] == welcome["you"]
