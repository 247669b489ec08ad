"""The forced end of a process, with a stand-in for it; tests/runner has real ones."""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Iterator

import pytest
import trio

from trio_channels._concurrency import watchdog
from trio_channels._concurrency.watchdog import Watchdog, is_idle
from trio_channels.sync import sync_to_async

PATIENCE = 30
logger = logging.getLogger("tests.watchdog")


class Exits:
    """The exit codes of the process, which it survives."""

    def __init__(self) -> None:
        self.codes: list[int] = []
        self.happened = threading.Event()
        self.log_closed = threading.Event()

    def __call__(self, code: int) -> None:
        self.codes.append(code)
        self.happened.set()


@pytest.fixture
def exits(monkeypatch: pytest.MonkeyPatch) -> Exits:
    exits = Exits()
    monkeypatch.setattr("os._exit", exits)
    monkeypatch.setattr("logging.shutdown", exits.log_closed.set)  # or the session's handlers would be closed
    return exits


@pytest.fixture
def hanging() -> Iterator[threading.Thread]:
    """A thread that hangs, until the test has ended."""
    end = threading.Event()

    def hangs_here() -> None:
        end.wait()

    thread = threading.Thread(target=hangs_here, name="somebody's")
    thread.start()
    yield thread
    end.set()
    thread.join()


def test_process_over_its_time_is_ended_and_logged(
    exits: Exits, hanging: threading.Thread, caplog: pytest.LogCaptureFixture
) -> None:
    with Watchdog(logger) as dog:
        dog.within(0, 7)
        assert exits.happened.wait(PATIENCE)
    assert exits.codes == [7]
    (record,) = caplog.records
    assert record.levelno == logging.CRITICAL
    assert "with exit code 7" in (text := record.getMessage())
    assert "somebody's:\n" in text
    assert "hangs_here" in text


def test_what_was_said_last_counts(exits: Exits) -> None:
    with Watchdog(logger) as dog:
        dog.within(3600, 1)
        dog.within(0, 2)
        assert exits.happened.wait(PATIENCE)
    assert exits.codes == [2]


def test_process_that_ends_by_itself_is_left_alone(exits: Exits) -> None:
    with Watchdog(logger):
        pass
    with Watchdog(logger) as dog:
        dog.within(3600, 1)
    assert exits.codes == []


def test_log_that_hangs_does_not_keep_the_process(exits: Exits, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watchdog, "REPORTING", 0.01)
    log_goes_on = threading.Event()

    class Hangs(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            log_goes_on.wait()

    logger.addHandler(handler := Hangs())
    try:
        with Watchdog(logger) as dog:
            dog.within(0, 1)
            assert exits.happened.wait(PATIENCE)
    finally:
        log_goes_on.set()
        logger.removeHandler(handler)
    assert exits.log_closed.wait(PATIENCE)
    assert exits.codes == [1]


async def test_threads_that_wait_for_work_are_not_at_work() -> None:
    worker = await sync_to_async(threading.current_thread)()
    of_trio = await trio.to_thread.run_sync(threading.current_thread)
    for thread in worker, of_trio:
        with trio.fail_after(PATIENCE):  # it answers a moment before it waits again
            while not is_idle(sys._current_frames()[thread.ident or 0]):
                await trio.lowlevel.checkpoint()
