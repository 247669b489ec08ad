"""The lifespan protocol, on the server's side."""

from __future__ import annotations

import asyncio
import logging
import re
import traceback
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import pytest
import trio
import trio.testing
from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.trio.lifespan import UnexpectedMessageError
from hypercorn.utils import LifespanTimeoutError

from trio_channels._concurrency.exception_groups import bare
from trio_channels.server import serve
from trio_channels.server.lifespan import CANNOT_START, CRASHED, LifespanFailed
from trio_channels.server.run import hardened_worker

from ..integration.server.conftest import Server, config_for_tests

Part = Callable[[Any, Any], Awaitable[None]]

STARTED = {"type": "lifespan.startup.complete"}
ENDED = {"type": "lifespan.shutdown.complete"}


def application(start: Part, end: Part) -> Any:
    """An application of two parts; over HTTP it says hello."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await start(receive, send)
            await end(receive, send)
        else:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"hello"})

    return app


async def starts(receive: Any, send: Any) -> None:
    assert await receive() == {"type": "lifespan.startup"}
    await send(STARTED)


async def ends(receive: Any, send: Any) -> None:
    assert await receive() == {"type": "lifespan.shutdown"}
    await send(ENDED)


async def fails_to_start(receive: Any, send: Any) -> None:
    await receive()
    await send({"type": "lifespan.startup.failed", "message": "no database today"})


async def fails_to_end(receive: Any, send: Any) -> None:
    await receive()
    await send({"type": "lifespan.shutdown.failed", "message": "the queue is not empty"})


async def raises(receive: Any, send: Any) -> None:
    raise ValueError("boom")


async def raises_after_receive(receive: Any, send: Any) -> None:
    await receive()
    raise ValueError("boom")


async def raises_after_its_end(receive: Any, send: Any) -> None:
    await ends(receive, send)
    raise ValueError("boom")


async def raises_a_group(receive: Any, send: Any) -> None:
    await receive()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(raises, receive, send)
        await trio.sleep_forever()


async def raises_its_own_error_after_the_failure(receive: Any, send: Any) -> None:
    try:
        await fails_to_start(receive, send)
    finally:
        raise ValueError("boom")


async def stays(receive: Any, send: Any) -> None:
    await ends(receive, send)
    await receive()  # there is nothing more


async def listens_on(receive: Any, send: Any) -> None:
    """Shut down while another task waits for one more message, which there is not."""
    await receive()
    async with trio.open_nursery() as nursery:

        async def listen() -> None:
            raise AssertionError(await receive())

        nursery.start_soon(listen)
        await trio.testing.wait_all_tasks_blocked()
        await send(ENDED)
        nursery.cancel_scope.cancel()


async def sends_nonsense(receive: Any, send: Any) -> None:
    await receive()
    await send({"type": "http.response.start"})


async def never_answers(receive: Any, send: Any) -> None:
    await receive()
    await trio.sleep_forever()


async def run(app: Any, **options: Any) -> None:
    """Start, ask for a page, and end."""
    stop = trio.Event()
    async with trio.open_nursery() as nursery:
        (bind,) = await nursery.start(partial(serve, app, config_for_tests(**options), shutdown_trigger=stop.wait))
        assert (await Server(int(bind.rpartition(":")[2])).request("GET", "/")).body == b"hello"
        stop.set()


@pytest.mark.parametrize("end", [ends, stays, listens_on])
async def test_application_starts_and_ends(end: Part, caplog: pytest.LogCaptureFixture) -> None:
    await run(application(starts, end))
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


@pytest.mark.parametrize(
    ("start", "end", "stage", "reason"),
    [
        (fails_to_start, ends, "startup", "no database today"),
        (raises_its_own_error_after_the_failure, ends, "startup", "no database today"),
        (starts, fails_to_end, "shutdown", "the queue is not empty"),
        (starts, raises_after_receive, "shutdown", "ValueError: boom"),
    ],
)
async def test_failure_is_raised(start: Part, end: Part, stage: str, reason: str) -> None:
    with pytest.raises(ExceptionGroup) as group:
        await run(application(start, end))
    failure = bare(group.value)
    assert isinstance(failure, LifespanFailed)
    assert (failure.stage, failure.reason) == (stage, reason)


async def test_application_without_lifespan_is_served(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        await run(application(raises, ends))
    (line,) = (record for record in caplog.records if "has no lifespan" in record.message)
    assert line.levelno == logging.INFO
    assert line.exc_info is None


@pytest.mark.parametrize(
    ("start", "end", "heading", "kind"),
    [
        (raises_after_receive, ends, "the lifespan of the application failed", ValueError),
        (raises_a_group, ends, "the lifespan of the application failed", ExceptionGroup),
        (sends_nonsense, ends, "the lifespan of the application failed", UnexpectedMessageError),
        (starts, raises_after_its_end, "the application failed while it was shutting down", ValueError),
    ],
)
async def test_error_is_logged_and_the_server_goes_on(
    start: Part, end: Part, heading: str, kind: type[Exception], caplog: pytest.LogCaptureFixture
) -> None:
    await run(application(start, end))
    (record,) = (record for record in caplog.records if record.levelno == logging.ERROR)
    assert record.message.startswith(heading)
    assert record.exc_info is not None
    assert isinstance(record.exc_info[1], kind)


# -- an application that needs asyncio --------------------------------------------------------------------------------


async def asks_for_the_loop(receive: Any, send: Any) -> None:
    asyncio.get_running_loop()


async def sleeps(receive: Any, send: Any) -> None:
    await receive()
    await asyncio.sleep(1)


async def sleeps_in_a_task(receive: Any, send: Any) -> None:
    await receive()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(asyncio.sleep, 1)


async def tells_of_its_failure(receive: Any, send: Any) -> None:
    """As Starlette and FastAPI do."""
    await receive()
    try:
        await asyncio.sleep(1)
    except BaseException as error:
        await send({"type": "lifespan.startup.failed", "message": "".join(traceback.format_exception(error))})
        raise


@pytest.mark.parametrize(
    ("start", "way"),
    [
        (asks_for_the_loop, "asyncio does not work in a Trio task: use Trio's own functions"),
        (sleeps, "asyncio.sleep does not work in a Trio task: use trio.sleep(seconds)"),
        (sleeps_in_a_task, "asyncio.sleep does not work in a Trio task: use trio.sleep(seconds)"),
        (tells_of_its_failure, "asyncio.sleep does not work in a Trio task: use trio.sleep(seconds)"),
    ],
)
async def test_start_that_needs_asyncio_is_refused(start: Part, way: str, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(ExceptionGroup) as group:
        await run(application(start, ends))
    failure = bare(group.value)
    assert isinstance(failure, LifespanFailed)
    assert failure.stage == "startup"
    assert failure.reason.count(way) == 1
    assert "Running on" not in caplog.text
    place = rf'test_lifespan.py", line \d+, in {start.__name__}\b'  # the log, or the reason, leads to the code
    assert re.search(place, caplog.text + failure.reason) is not None


async def test_asyncio_after_the_start_is_noted(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(ExceptionGroup):
        await serve(application(starts, sleeps_at_once), config_for_tests())
    (record,) = (record for record in caplog.records if record.levelno == logging.ERROR)
    assert record.exc_info is not None
    assert record.exc_info[1] is not None
    assert record.exc_info[1].__notes__ == ["asyncio.sleep does not work in a Trio task: use trio.sleep(seconds)"]


async def sleeps_at_once(receive: Any, send: Any) -> None:
    await asyncio.sleep(1)


# -- an application that fails while it is served ----------------------------------------------------------------------


async def tells_of_its_crash(receive: Any, send: Any) -> None:
    """As Starlette does."""
    await send({"type": "lifespan.shutdown.failed", "message": "ValueError: boom"})


async def raises_in_a_task(receive: Any, send: Any) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(raises, receive, send)
        await receive()


@pytest.mark.parametrize(
    ("end", "records"), [(raises, [ValueError]), (raises_in_a_task, [ExceptionGroup]), (tells_of_its_crash, [])]
)
async def test_error_after_the_start_ends_the_server(
    end: Part, records: list[type[Exception]], caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(ExceptionGroup) as group:
        await serve(application(starts, end), config_for_tests())  # which nobody stops
    failure = bare(group.value)
    assert str(failure) == "the lifespan of the application failed: ValueError: boom"
    assert isinstance(failure, LifespanFailed)
    assert failure.stage == "lifespan"
    errors = [record.exc_info for record in caplog.records if record.levelno >= logging.ERROR]
    assert [info[0] for info in errors if info is not None] == records


# -- the end of the server --------------------------------------------------------------------------------------------


async def test_cancelled_server_cancels_the_lifespan(caplog: pytest.LogCaptureFixture) -> None:
    """A nursery in the application makes a group of the cancellations: that is no failure."""
    cancelled = []

    async def sleep() -> None:
        try:
            await trio.sleep_forever()
        except trio.Cancelled:
            cancelled.append(True)
            raise

    async def waits(receive: Any, send: Any) -> None:
        async with trio.open_nursery() as inner:
            inner.start_soon(sleep)
            inner.start_soon(sleep)

    async with trio.open_nursery() as nursery:
        await nursery.start(serve, application(starts, waits), config_for_tests())
        nursery.cancel_scope.cancel()
    assert cancelled == [True, True]
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


async def test_interrupt_in_the_lifespan_ends_the_server() -> None:
    interrupt = trio.Event()

    async def interrupted(receive: Any, send: Any) -> None:
        async with trio.open_nursery():
            await interrupt.wait()
            raise KeyboardInterrupt

    async def serve_until_then() -> None:
        async with trio.open_nursery() as nursery:
            await nursery.start(serve, application(starts, interrupted), config_for_tests())
            interrupt.set()

    with pytest.raises(BaseExceptionGroup) as group:
        await serve_until_then()
    assert group.value.split(KeyboardInterrupt)[0] is not None


@pytest.mark.parametrize(("start", "end", "stage"), [(never_answers, ends, "startup"), (starts, never_answers, "shut")])
async def test_application_that_does_not_answer_times_out(start: Part, end: Part, stage: str) -> None:
    with pytest.raises(ExceptionGroup) as group:
        await run(
            application(start, end), startup_timeout=0.01 if start is never_answers else 60, shutdown_timeout=0.01
        )
    failure = bare(group.value)
    assert isinstance(failure, LifespanTimeoutError)
    assert stage in str(failure)


@pytest.mark.parametrize(
    ("start", "end", "code"),
    [(fails_to_start, ends, CANNOT_START), (starts, fails_to_end, CRASHED), (starts, tells_of_its_crash, CRASHED)],
)
async def test_hypercorns_command_ends_with_a_code(
    start: Part, end: Part, code: int, caplog: pytest.LogCaptureFixture
) -> None:
    async def at_once() -> None:
        await trio.testing.wait_all_tasks_blocked()

    app = ASGIWrapper(application(start, end))
    with pytest.raises(SystemExit) as ended:
        await hardened_worker(app, config_for_tests(), shutdown_trigger=at_once)
    assert ended.value.code == code
    (record,) = (record for record in caplog.records if record.levelno == logging.CRITICAL)
    assert record.exc_info is None


async def test_hypercorns_command_refuses_a_wrong_configuration(caplog: pytest.LogCaptureFixture) -> None:
    app = ASGIWrapper(application(starts, ends))
    with pytest.raises(SystemExit) as ended:
        await hardened_worker(app, config_for_tests(root_path="chat"))
    assert ended.value.code == CANNOT_START
    (record,) = (record for record in caplog.records if record.levelno == logging.CRITICAL)
    assert "root_path" in record.getMessage()


async def test_other_errors_of_hypercorns_command_are_raised() -> None:
    app = ASGIWrapper(application(starts, ends))
    with pytest.raises(ExceptionGroup) as group:
        await hardened_worker(app, config_for_tests(bind=["127.0.0.1:0"], certfile="none", keyfile="none"))
    assert isinstance(bare(group.value), OSError)
