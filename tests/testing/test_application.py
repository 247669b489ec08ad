"""The communicator that the others build on."""

from __future__ import annotations

from typing import Any

import pytest
import trio
import trio.testing

from trio_channels.testing import ApplicationCommunicator

SCOPE = {"type": "test"}


async def echo(scope: Any, receive: Any, send: Any) -> None:
    """Sends back each message; ``crash`` makes it raise, ``end`` ends it."""
    while (message := await receive())["type"] != "end":
        if message["type"] == "crash":
            raise LookupError("asked to")
        await send(message)


async def silent(scope: Any, receive: Any, send: Any) -> None:
    await trio.sleep_forever()


class Life:
    """An application that says whether it was cancelled."""

    def __init__(self) -> None:
        self.cancelled = False

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        try:
            await trio.sleep_forever()
        except trio.Cancelled:
            self.cancelled = True
            raise


# -- with a block, and without ----------------------------------------------------------------------------------------


async def test_messages_go_in_and_come_out_in_order() -> None:
    async with ApplicationCommunicator(echo, SCOPE) as app:
        for n in range(3):
            await app.send_input({"type": "n", "n": n})
        assert [(await app.receive_output())["n"] for _ in range(3)] == [0, 1, 2]


async def test_application_gets_the_scope_itself() -> None:
    seen: list[Any] = []

    async def application(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope)

    scope = {"type": "test"}
    async with ApplicationCommunicator(application, scope) as app:
        await app.wait()
    assert seen[0] is scope


async def test_nothing_runs_before_the_first_call() -> None:
    life = Life()
    async with ApplicationCommunicator(life, SCOPE) as app:
        await trio.testing.wait_all_tasks_blocked()
        assert repr(app) == "<ApplicationCommunicator of a 'test' scope, not started>"
    assert not life.cancelled


async def test_end_of_the_block_cancels_the_application() -> None:
    life = Life()
    async with ApplicationCommunicator(life, SCOPE) as app:
        await app.send_input({"type": "x"})
        await trio.testing.wait_all_tasks_blocked()
        assert repr(app).endswith("running>")
    assert life.cancelled
    assert repr(app).endswith("ended>")


async def in_a_block(application: Any, kind: str, error: Exception | None = None) -> None:
    """Sends one message, lets the application handle it, and leaves the block, perhaps with an exception."""
    async with ApplicationCommunicator(application, SCOPE) as app:
        await app.send_input({"type": kind})
        await trio.testing.wait_all_tasks_blocked()
        if error is not None:
            raise error


async def test_end_of_the_block_raises_what_the_application_raised() -> None:
    with pytest.raises(LookupError, match="asked to"):
        await in_a_block(echo, "crash")


async def test_failure_of_the_test_itself_comes_first() -> None:
    with pytest.raises(ZeroDivisionError):
        await in_a_block(echo, "crash", ZeroDivisionError())


async def test_what_cleaning_up_raises_at_the_end_of_the_block_is_seen() -> None:
    async def fails_late(scope: Any, receive: Any, send: Any) -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise LookupError("while cleaning up")

    with pytest.raises(LookupError, match="while cleaning up"):
        await in_a_block(fails_late, "x")


async def nested(scope: Any, receive: Any, send: Any) -> None:
    """Is cancelled with a group of exceptions."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.sleep_forever)
        nursery.start_soon(trio.sleep_forever)
        await trio.sleep_forever()


def test_application_with_own_nurseries_is_cancelled_cleanly() -> None:
    # In a run of its own: pytest-trio takes cancellations that come out of a test for its end.
    trio.run(in_a_block, nested, "x")


def test_waiting_for_an_application_cancels_its_nurseries() -> None:
    async def wait() -> None:
        with pytest.raises(trio.TooSlowError):
            await ApplicationCommunicator(nested, SCOPE).wait()

    trio.run(wait, clock=trio.testing.MockClock(autojump_threshold=0))


def test_of_a_group_with_cancellations_only_the_rest_is_raised() -> None:
    async def fails_late(scope: Any, receive: Any, send: Any) -> None:
        try:
            await nested(scope, receive, send)
        except BaseExceptionGroup as group:
            raise BaseExceptionGroup("", [*group.exceptions, LookupError("while cleaning up")]) from None

    with pytest.raises(ExceptionGroup) as caught:
        trio.run(in_a_block, fails_late, "x")
    assert [type(error) for error in caught.value.exceptions] == [LookupError]


async def test_cancelled_test_cancels_its_application() -> None:
    life = Life()
    with trio.CancelScope() as scope:
        async with ApplicationCommunicator(life, SCOPE) as app:
            await app.send_input({"type": "x"})
            await trio.testing.wait_all_tasks_blocked()
            scope.cancel()
            await trio.sleep_forever()
    assert scope.cancelled_caught
    assert life.cancelled


async def test_without_a_block_the_application_runs_until_it_is_waited_for() -> None:
    app = ApplicationCommunicator(echo, SCOPE)
    await app.send_input({"type": "x"})
    assert await app.receive_output() == {"type": "x"}
    await app.send_input({"type": "end"})
    await app.wait()
    assert repr(app).endswith("ended>")


def test_without_a_block_the_end_of_the_run_ends_the_application() -> None:
    life = Life()

    async def main() -> None:
        await ApplicationCommunicator(life, SCOPE).send_input({"type": "x"})
        await trio.testing.wait_all_tasks_blocked()

    trio.run(main)
    assert life.cancelled


# -- time-outs --------------------------------------------------------------------------------------------------------


async def test_time_out_ends_the_wait_and_not_the_application(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ApplicationCommunicator, "timeout", 1.0)
    async with ApplicationCommunicator(echo, SCOPE) as app:
        with pytest.raises(trio.TooSlowError, match="sent nothing within"):
            await app.receive_output()
        assert trio.current_time() == pytest.approx(1)
        await app.send_input({"type": "x"})
        assert await app.receive_output() == {"type": "x"}


@pytest.mark.parametrize("expected", [TimeoutError, trio.TooSlowError])
async def test_time_out_is_both_exceptions(autojump_clock: trio.testing.MockClock, expected: type[Exception]) -> None:
    app = ApplicationCommunicator(Life(), SCOPE)
    with pytest.raises(expected, match="sent nothing within 1 seconds"):
        await app.receive_output(timeout=1)
    with pytest.raises(expected, match="did not end within 1 seconds"):
        await app.wait(timeout=1)


async def test_waiting_for_an_application_that_does_not_end_cancels_it(autojump_clock: trio.testing.MockClock) -> None:
    life = Life()
    async with ApplicationCommunicator(life, SCOPE) as app:
        with pytest.raises(trio.TooSlowError, match="did not end within 5 seconds, and was cancelled"):
            await app.wait(timeout=5)
        assert life.cancelled


async def test_waiting_raises_the_cancelled_applications_exception(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async def fails_late(scope: Any, receive: Any, send: Any) -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise LookupError("while cleaning up")

    async with ApplicationCommunicator(fails_late, SCOPE) as app:
        with pytest.raises(LookupError, match="while cleaning up"):
            await app.wait()


# -- failures ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "call",
    [
        pytest.param(lambda app: app.send_input({"type": "x"}), id="send_input"),
        pytest.param(lambda app: app.receive_output(), id="receive_output"),
        pytest.param(lambda app: app.receive_nothing(), id="receive_nothing"),
        pytest.param(lambda app: app.wait(), id="wait"),
    ],
)
async def test_next_call_raises_the_applications_exception_once(call: Any) -> None:
    async with ApplicationCommunicator(echo, SCOPE) as app:
        await app.send_input({"type": "crash"})
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(LookupError, match="asked to"):
            await call(app)
        await app.wait()


async def test_messages_sent_before_a_failure_are_received_first() -> None:
    async with ApplicationCommunicator(echo, SCOPE) as app:
        await app.send_input({"type": "x"})
        await app.send_input({"type": "crash"})
        await trio.testing.wait_all_tasks_blocked()
        assert await app.receive_output() == {"type": "x"}
        with pytest.raises(LookupError):
            await app.receive_output()


async def test_receiving_from_an_ended_application_is_end_of_file() -> None:
    async with ApplicationCommunicator(echo, SCOPE) as app:
        await app.send_input({"type": "end"})
        with pytest.raises(EOFError, match="has ended, and sent nothing more"):
            await app.receive_output()


async def test_input_for_an_application_that_has_ended_is_not_an_error() -> None:
    async with ApplicationCommunicator(echo, SCOPE) as app:
        await app.send_input({"type": "end"})
        await app.wait()
        await app.send_input({"type": "nobody reads this"})
        assert await app.receive_nothing()


async def test_stopping_cancels_without_waiting() -> None:
    life = Life()
    async with ApplicationCommunicator(life, SCOPE) as app:
        await app.send_input({"type": "x"})
        await trio.testing.wait_all_tasks_blocked()
        app.stop()
        assert not life.cancelled
        await app.wait()
        assert life.cancelled


async def test_stopping_raises_the_applications_exception() -> None:
    for exceptions in (False, True):
        app = ApplicationCommunicator(echo, SCOPE)
        await app.send_input({"type": "crash"})
        await trio.testing.wait_all_tasks_blocked()
        if exceptions:
            with pytest.raises(LookupError):
                app.stop()
        else:
            app.stop(exceptions=False)


# -- nothing ----------------------------------------------------------------------------------------------------------


async def test_nothing_is_received_from_a_silent_application(autojump_clock: trio.testing.MockClock) -> None:
    async with ApplicationCommunicator(silent, SCOPE) as app:
        assert await app.receive_nothing(timeout=3)
        assert trio.current_time() == pytest.approx(3)


async def test_something_is_received_from_one_that_answers_late(autojump_clock: trio.testing.MockClock) -> None:
    async def late(scope: Any, receive: Any, send: Any) -> None:
        await trio.sleep(2)
        await send({"type": "late"})
        await trio.sleep_forever()

    async with ApplicationCommunicator(late, SCOPE) as app:
        assert await app.receive_nothing(timeout=1)
        assert not await app.receive_nothing(timeout=2)
        assert await app.receive_output() == {"type": "late"}


async def test_nothing_is_waited_for_where_the_application_has_ended(autojump_clock: trio.testing.MockClock) -> None:
    async with ApplicationCommunicator(echo, SCOPE) as app:
        await app.send_input({"type": "x"})
        await app.send_input({"type": "end"})
        assert not await app.receive_nothing(timeout=1000)
        await app.receive_output()
        assert await app.receive_nothing(timeout=1000)
    assert trio.current_time() == 0
