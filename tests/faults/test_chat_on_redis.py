"""The chat as ``serve_redis.py`` runs it: two server processes, one database, one Redis."""

from __future__ import annotations

import os
import re
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import trio

from trio_channels.client import ClientTopic, Rejoined, connect
from trio_channels.exceptions import CannotConnect

from ..ports import free_port
from ..redis_server import needs_redis

pytestmark = [pytest.mark.faults, needs_redis]

ROOT = Path(__file__).parents[2]
SERVE = ROOT / "examples" / "chat" / "serve_redis.py"
#: Seconds; only a test that fails waits as long.
PATIENCE = 120.0


class Runner:
    """``serve_redis.py`` as a process, and its output.

    Attributes:
        pids: the process ids of the servers, by port; each start of a server adds one.
    """

    def __init__(self, process: trio.Process) -> None:
        self.process = process
        self.output = ""
        self.pids: dict[int, list[int]] = {}

    async def read(self) -> None:
        """Read the process's output until it ends."""
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
            process.terminate()  # does nothing if the process has ended, as it should
            await process.wait()
    assert process.returncode == 0, runner.output
    assert runner.output.endswith("Stopped.\n")
    assert "Traceback" not in runner.output


class Page:
    """A page in the room ``garden``, without the browser. Its methods read the events one by one."""

    def __init__(self, room: ClientTopic) -> None:
        self.room = room
        self.me: dict[str, Any] = room.response["you"]

    async def say(self, text: str, push_id: str | None = None) -> int:
        """Send a message; returns its id."""
        reply = await self.room.push("message.new", {"text": text, "push_id": push_id or uuid4().hex})
        return int(reply["id"])

    async def history(self) -> list[str]:
        return [message["text"] for message in (await self.room.push("history"))["messages"]]

    async def next_message(self) -> dict[str, Any]:
        """The next message; other events are passed over."""
        async for message in self.room:
            if message.event == "message":
                content: dict[str, Any] = message.payload
                return content
        raise AssertionError("the room has ended")

    async def rejoined(self) -> Rejoined:
        """Wait for the end of the next outage."""
        async for message in self.room:
            if isinstance(message, Rejoined):
                return message
        raise AssertionError("the room has ended")

    async def sees(self, *people: str) -> None:
        """Wait until exactly these people are there."""
        while set(self.room.presence) != set(people):
            await anext(aiter(self.room))


@asynccontextmanager
async def page(port: int) -> AsyncIterator[Page]:
    """Open a page; the server may still be starting."""
    address, origin = f"ws://127.0.0.1:{port}/socket", [(b"origin", f"http://127.0.0.1:{port}".encode())]
    while True:
        try:
            async with connect(address, headers=origin) as socket, socket.join("room:garden") as room:
                yield Page(room)
                return
        except CannotConnect:
            await trio.sleep(0.05)


@pytest.mark.time_limit(120)
async def test_two_servers_share_people_and_outlive_a_kill(tmp_path: Path) -> None:
    first = free_port(1)
    second = first + 1
    with trio.fail_after(PATIENCE):
        async with running(tmp_path / "chat.sqlite3", first) as runner, page(first) as ada:
            me = ada.me["id"]
            async with page(second) as tom:
                await tom.sees(me, tom.me["id"])
                await ada.sees(me, tom.me["id"])
                await ada.say("Can you hear me over there?")
                assert (await tom.next_message())["text"] == "Can you hear me over there?"
                await tom.say("Loud and clear.")
                assert (await ada.next_message())["who"] == ada.me
                assert (await ada.next_message())["who"] == tom.me
                assert (await tom.next_message())["who"] == tom.me

                os.kill(runner.pids[second][0], signal.SIGKILL)
                await ada.say("Are you still there?")
                await ada.say("Hello?")
                # The history is in Redis: the page resumes by its position.
                assert (await tom.rejoined()).recovered
                assert [(await tom.next_message())["text"] for _ in range(2)] == ["Are you still there?", "Hello?"]
                assert len(runner.pids[second]) == 2
                assert len(await tom.history()) == 4
                # A visitor without a session is a new person after each connect. The former one leaves with the lease.
                tom_again = tom.room.response["you"]["id"]
                await tom.sees(me, tom_again)
                await ada.sees(me, tom_again)
            await ada.sees(me)


@pytest.mark.time_limit(120)
async def test_message_sent_twice_over_two_servers_is_stored_once(tmp_path: Path) -> None:
    first = free_port(1)
    with trio.fail_after(PATIENCE):
        async with running(tmp_path / "chat.sqlite3", first), page(first) as ada, page(first + 1) as tom:
            push_id = uuid4().hex
            number = await ada.say("once", push_id)
            assert await tom.say("once", push_id) == number
            assert await ada.say("once more") > number
            assert await tom.history() == ["once", "once more"]
            assert [(await tom.next_message())["id"] for _ in range(2)] == [number, number]
