"""An auto-reset event for one waiting task, on every message's path."""

from __future__ import annotations

import types
from collections.abc import AsyncGenerator, Callable, Generator
from typing import Any, TypeVar

import outcome
import trio

T = TypeVar("T")


class Wakeup:
    """An auto-reset event: wakes the one task that waits, or is kept for the next :meth:`wait`.

    Several calls of :meth:`set` count as one, so the waiter looks at everything that may have changed. A wait costs one
    task switch and no allocation; a :class:`trio.Event` and a memory channel each cost about a third more.
    """

    # A task waits while its `custom_sleep_data` is this object. Trio resets that whenever it reschedules the task, also
    # to cancel it, so a cancelled wait needs no clean-up.
    __slots__ = ("_is_set", "waiter")

    def __init__(self) -> None:
        self.waiter: trio.lowlevel.Task | None = None
        self._is_set = False

    def __repr__(self) -> str:
        return f"<Wakeup {'waited for' if self.waited_for else 'set' if self._is_set else 'not set'}>"

    @property
    def waited_for(self) -> bool:
        """Whether a task is waiting now."""
        return self.waiter is not None and self.waiter.custom_sleep_data is self

    def set(self) -> None:
        """Wake the waiter, which must be in the same Trio run."""
        waiter = self.waiter
        if waiter is None or waiter.custom_sleep_data is not self:
            self._is_set = True
        else:
            trio.lowlevel.reschedule(waiter, WOKEN)

    def hand_over(self, result: outcome.Outcome[object]) -> bool:
        """Wake the waiter with a result for its :meth:`wait`. Returns False, and keeps nothing, if no task waits."""
        waiter = self.waiter
        if waiter is None or waiter.custom_sleep_data is not self:
            return False
        trio.lowlevel.reschedule(waiter, result)
        return True

    @types.coroutine
    def wait(self) -> Generator[Any, Any, object]:
        """Wait for :meth:`set` (returns None) or :meth:`hand_over` (returns the result).

        Returns True at once, without a checkpoint, if it is set already. A cancelled wait loses nothing.
        """
        if self._is_set:
            self._is_set = False
            return True
        if self.waited_for:
            raise trio.BusyResourceError("another task is already waiting for this wake-up")
        self.waiter = task = trio.lowlevel.current_task()
        task.custom_sleep_data = self
        if _TRAP is None:
            return (yield from trio.lowlevel.wait_task_rescheduled(_give_up).__await__())  # noqa: ASYNC105
        return (yield _TRAP).unwrap()


class _Woken(outcome.Outcome[None]):
    """The outcome None. Unlike :class:`outcome.Value` it can be unwrapped more than once, so one object is enough."""

    __slots__ = ()

    def unwrap(self) -> None:
        return None

    def send(self, gen: Generator[T, None, object]) -> T:
        return gen.send(None)

    async def asend(self, agen: AsyncGenerator[T, None]) -> T:
        return await agen.asend(None)


WOKEN = _Woken()


def trap_of(abort: Callable[[Callable[[], Any]], trio.lowlevel.Abort]) -> object | None:
    """The object that :func:`trio.lowlevel.wait_task_rescheduled` yields to Trio's scheduler, if it can be reused.

    It depends on `abort` alone, so :class:`Wakeup` makes it once. With a call of Trio's function for each wait, an echo
    over sockets takes about 7 % more processor time, and a fan-out in memory 8 %. Trio documents the function and not
    the object, so the object is checked: the function must yield nothing else, must keep nothing in it but `abort`, and
    must unwrap the outcome that it is resumed with. Otherwise the result is None.
    """
    waiting = trio.lowlevel.wait_task_rescheduled(abort)  # noqa: ASYNC105  # it is taken apart here
    trap = waiting.send(None)
    try:
        waiting.send(outcome.Value(abort))
    except StopIteration as end:
        return trap if end.value is abort and getattr(trap, "__dict__", None) == {"abort_func": abort} else None
    except Exception:
        return None
    waiting.close()
    return None


def _give_up(_raise_cancel: object) -> trio.lowlevel.Abort:
    return trio.lowlevel.Abort.SUCCEEDED


_TRAP = trap_of(_give_up)
