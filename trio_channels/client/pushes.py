"""A push that waits for its replies."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Any

import msgspec
import trio

from .._concurrency.wakeup import Wakeup
from ..exceptions import PushFailed, ReplyLost, ReplyTimeout


class Pending:
    """A push, and the replies to it that have come."""

    __slots__ = ("_error", "_limit", "_replies", "_wakeup", "event", "payload", "ref")

    def __init__(self, ref: str, event: str, payload: msgspec.Raw | bytes, limit: int = 1) -> None:
        self.ref = ref
        self.event = event
        self.payload = payload
        self._limit = limit
        self._replies: deque[tuple[str, Any]] = deque()
        self._error: Callable[[], Exception] | None = None
        self._wakeup = Wakeup()

    def answer(self, status: str, response: Any) -> None:
        """Take a reply."""
        if len(self._replies) >= self._limit:
            self.fail(
                lambda: ReplyLost(f"more than {self._limit} replies to {self.event!r} have come and were not read")
            )
            return
        self._replies.append((status, response))
        self._wakeup.set()

    def fail(self, error: Callable[[], Exception]) -> None:
        """No further reply will come."""
        self._error = self._error or error
        self._wakeup.set()

    async def next(self, timeout: float) -> tuple[str, Any]:
        """The next reply: its status, and the response. Cancellation: loses no reply.

        Raises:
            ReplyTimeout: it has not come in time.
            ReplyLost, NotConnected, TopicEnded, SocketEnded, JoinFailed: it will not come.
        """
        with trio.CancelScope(deadline=math.inf if timeout == math.inf else trio.current_time() + timeout):
            while not self._replies and self._error is None:
                await self._wakeup.wait()
        if self._replies:
            return self._replies.popleft()
        if self._error is not None:
            raise self._error()
        raise ReplyTimeout(f"no reply to {self.event!r} within {timeout:g} seconds")


class Replies(AsyncIterator[Any]):
    """The values of a stream of replies."""

    def __init__(self, pending: Pending, timeout: float) -> None:
        self._pending = pending
        self._timeout = timeout
        self._ended = False

    async def __anext__(self) -> Any:
        """The next value. Raises and cancellation: as :meth:`ClientTopic.push`; an iteration can be gone on with."""
        if self._ended:
            raise StopAsyncIteration
        status, response = await self._pending.next(self._timeout)
        if status == "ok":
            return response
        self._ended = True
        if status == "end":
            raise StopAsyncIteration
        raise PushFailed(response)
