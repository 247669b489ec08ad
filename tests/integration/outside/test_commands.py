"""``async_to_sync`` from management commands: as a process, in a thread, and called by a view inside a Trio run."""

from __future__ import annotations

import io
import threading

import pytest
import trio
from django.core.management import call_command

from trio_channels.layers import get_channel_layer
from trio_channels.sync import sync_to_async

from .conftest import PATIENCE, Room
from .management.commands.announce import Command
from .test_processes import texts

pytestmark = pytest.mark.slow


def manage(room: Room, *arguments: str) -> str:
    process = room.start("-m", "django", *arguments)
    output, errors = process.communicate(timeout=PATIENCE)
    assert (process.returncode, errors) == (0, "")
    return str(output)


def announce(*arguments: str) -> str:
    output = io.StringIO()
    call_command(Command(stdout=output), *arguments)
    return output.getvalue()


def test_management_command_sends_with_one_trio_run_and_ends(room: Room) -> None:
    receiver = room.listen()
    assert manage(room, "announce", "one", "two", "--last") == "sent; loops started: trio\n"
    assert texts(receiver.messages()) == ["one", "two"]


@pytest.mark.faults  # for its length alone
def test_command_that_sends_from_threads_has_one_trio_run(room: Room) -> None:
    receiver = room.listen()
    said = [f"text-{number}" for number in range(100)]
    assert manage(room, "announce", *said, "--threads=8", "--last") == "sent; loops started: trio\n"
    assert sorted(texts(receiver.messages())) == sorted(said)


def test_command_in_a_pool_thread_uses_its_trio_run(room: Room) -> None:
    heard: list[str] = []

    async def main() -> str:
        layer = get_channel_layer()
        assert layer is not None
        async with layer, layer.subscribe("room") as events:
            output = await sync_to_async(announce)("one", "two")
            for _ in range(2):
                with trio.fail_after(PATIENCE):
                    event = await anext(events)
                assert isinstance(event, dict)
                heard.append(event["text"])
            return output

    assert trio.run(main) == "sent; loops started: none\n"
    assert heard == ["one", "two"]


def test_command_in_a_plain_thread_uses_the_background_run(room: Room) -> None:
    receiver = room.listen()
    announce("the first may start it")
    outputs: list[str] = []
    thread = threading.Thread(target=lambda: outputs.append(announce("one", "--last")))
    thread.start()
    thread.join(PATIENCE)
    assert outputs == ["sent; loops started: none\n"]
    assert texts(receiver.messages()) == ["the first may start it", "one"]
