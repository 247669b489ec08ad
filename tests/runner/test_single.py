"""The process that serves, in this very process."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable, Iterator

import pytest
import trio
from hypercorn.utils import LifespanFailureError

from trio_channels.layers import channel_layers
from trio_channels.runner._lifeline import Place
from trio_channels.runner._single import STOP_SIGNALS, _Process, _why_not_started, warn_of_islands

from ..server.conftest import config_for_tests
from .application import application, fails


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    """What signals do is as it was before, whatever happens."""
    before = [signal.getsignal(number) for number in STOP_SIGNALS]
    yield
    for number, handler in zip(STOP_SIGNALS, before, strict=True):
        signal.signal(number, handler)


async def until(condition: Callable[[], object]) -> None:
    while not condition():
        await trio.lowlevel.checkpoint()


async def test_the_first_signal_drains_and_leaves_the_second_to_the_system() -> None:
    before = [signal.getsignal(number) for number in STOP_SIGNALS]
    process = _Process(application, config_for_tests(), None)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(process.run)
        await until(lambda: process.started)
        os.kill(os.getpid(), signal.SIGTERM)
        await until(lambda: signal.getsignal(signal.SIGINT) is signal.SIG_DFL)
    assert [signal.getsignal(number) for number in STOP_SIGNALS] == before


async def test_a_worker_says_that_it_serves_and_ends_with_its_lifeline() -> None:
    ours, theirs = socket.socketpair()
    with ours:
        process = _Process(application, config_for_tests(), Place(1, theirs.detach(), {}))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(process.run)
            await until(lambda: process.started)
            os.kill(os.getpid(), signal.SIGINT)
            await until(lambda: signal.getsignal(signal.SIGTERM) is signal.SIG_IGN)
            ours.shutdown(socket.SHUT_WR)
        assert ours.recv(10) == b"r"


async def test_a_start_that_fails_never_counts_as_serving() -> None:
    process = _Process(fails, config_for_tests(), None)
    with pytest.raises(ExceptionGroup) as failure:
        await process.run()
    assert not process.started
    assert "the application does not start: Lifespan failure" in str(_why_not_started(failure.value))


def test_a_server_that_failed_before_it_served_says_why_with_a_traceback() -> None:
    leaf = KeyError("a")
    told = _why_not_started(ExceptionGroup("", [ExceptionGroup("", [leaf])]))
    assert told.__cause__ is leaf
    both = ExceptionGroup("", [leaf, LifespanFailureError("startup", "b")])
    assert _why_not_started(both).__cause__ is both


def test_a_layer_of_one_process_is_warned_of_where_there_are_several(caplog: pytest.LogCaptureFixture) -> None:
    assert "default" in channel_layers
    warn_of_islands(3)
    (record,) = caplog.records
    assert "the channel layer 'default' is one in each of the 3 workers" in record.getMessage()
