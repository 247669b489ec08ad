"""What a task that parks tells Trio's scheduler, and what it is woken with; made once, and not for every wait.

:func:`trio.lowlevel.wait_task_rescheduled` is a coroutine around a generator that yields a message: what to call when
the wait is cancelled. Where that is the same each time, so is the message. It is taken from the function once, and a
generator of our own yields it. A fan-out is a twelfth faster for it: each of its members waits once per delivery.

Trio documents the function and not the message. So :func:`message` looks whether it is what it is taken for: the one
thing that the function yields, with nothing in it but what is to be called, and answered with an outcome, which the
function unwraps. Where that is not so any more, the function itself is to be called.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Generator
from typing import Any, TypeVar

import outcome
import trio

T = TypeVar("T")

Abort = Callable[[Callable[[], Any]], trio.lowlevel.Abort]


def message(abort: Abort) -> object:
    """What Trio's scheduler is told by a task that parks, and is woken with an outcome.

    Args:
        abort: called when the wait is cancelled; see :func:`trio.lowlevel.wait_task_rescheduled`.

    Returns: what is to be yielded, as often as one likes; None if this Trio does it in some other way.
    """
    waiting = trio.lowlevel.wait_task_rescheduled(abort)  # noqa: ASYNC105  # it is taken apart here
    yielded = waiting.send(None)
    try:
        waiting.send(outcome.Value(abort))
    except StopIteration as end:
        if end.value is abort and getattr(yielded, "__dict__", None) == {"abort_func": abort}:
            return yielded
    except Exception:
        return None
    waiting.close()
    return None


class Woken(outcome.Outcome[None]):
    """What a task is woken with that is told nothing; unlike Trio's, one for all."""

    __slots__ = ()

    def unwrap(self) -> None:
        """Nothing, as often as it is asked for."""

    def send(self, gen: Generator[T, None, object]) -> T:
        """Resume a generator."""
        return gen.send(None)

    async def asend(self, agen: AsyncGenerator[T, None]) -> T:
        """Resume an async generator. Cancellation: the generator's."""
        return await agen.asend(None)


WOKEN = Woken()
