"""The server's side of the lifespan protocol (ASGI specification, Lifespan 2.0).

hypercorn's own loses a failure at the shutdown, and the traceback of an application that raises at its start.

The rules:

1. An application that raises before it has received anything does not support the protocol. It is served without it.
2. One that raises later, before it has answered the start, is logged with its traceback. It is served on, as the
   specification says.
3. One that raises after its start is logged too. The server drains, as on SIGTERM, and raises :class:`LifespanFailed`:
   what the connections need may be gone. ``lifespan.shutdown.failed`` that nobody has asked for means the same.
4. ``lifespan.startup.failed`` and ``lifespan.shutdown.failed`` are raised in the server as :class:`LifespanFailed`,
   once the application has ended.
5. An application that calls asyncio before it has started needs asyncio. It is not served: its requests would fail too.
"""

from __future__ import annotations

from typing import Any, cast

import trio
from hypercorn.config import Config
from hypercorn.trio.lifespan import UnexpectedMessageError
from hypercorn.typing import AppWrapper, LifespanScope, LifespanState
from hypercorn.utils import LifespanFailureError, LifespanTimeoutError

from .._asgi.foreign_calls import explain, remedy
from .._asgi.protocol import Message
from .._concurrency.exception_groups import bare, split_cancelled

#: The exit code of a process that served and failed. (0 is an orderly end, 2 is argparse's.)
CRASHED = 1
#: The exit code of a process that never served. Starting it again does not help.
CANNOT_START = 3


class LifespanFailed(LifespanFailureError):
    """The application could not start, has failed while it was served, or could not end in order.

    Attributes:
        stage: ``startup``, ``lifespan`` or ``shutdown``.
        reason: the application's message, or its error in words.
    """

    def __init__(self, stage: str, reason: str) -> None:
        super().__init__(stage, reason)
        self.stage = stage
        self.reason = reason

    def __str__(self) -> str:
        return f"{_HEADINGS[self.stage]}: {self.reason}"


_HEADINGS = {
    "startup": "the application did not start",
    "lifespan": "the lifespan of the application failed",
    "shutdown": "the application did not end in order",
}


class Lifespan:
    """The lifespan of one application in one server."""

    def __init__(self, app: AppWrapper, config: Config, state: LifespanState) -> None:
        self._app = app
        self._config = config
        self._state = state
        self._has_received = False
        self._has_all = False
        self._started = trio.Event()
        self._ending = trio.Event()
        self._failed = trio.Event()
        self._stopped = trio.Event()
        self._failure: LifespanFailed | None = None

    async def run(self) -> None:
        """Run the application for the lifespan scope, until it ends or is cancelled."""
        scope: LifespanScope = {
            "type": "lifespan",
            "asgi": {"spec_version": "2.0", "version": "3.0"},
            "state": self._state,
        }
        try:
            receive, send = cast(Any, self._receive), cast(Any, self._send)
            await self._app(scope, receive, send, trio.to_thread.run_sync, trio.from_thread.run)
        except (Exception, BaseExceptionGroup) as error:
            _, others = split_cancelled(error)
            if others is None or not isinstance(others, Exception):
                raise
            await self._raised(others)
        finally:
            self._started.set()
            self._stopped.set()

    async def _raised(self, error: Exception) -> None:
        explain(error)
        note = remedy(error)
        if self._failure is not None:  # told already, perhaps without the remedy
            if note is not None:
                self._failure.reason = f"{self._failure.reason.rstrip()}\n{note}"
            return
        log = self._config.log
        if note is not None and not self._started.is_set():
            await log.error("the application failed while it was starting", exc_info=error)
            self._failure = LifespanFailed("startup", note)
            return
        if not self._has_received:
            await log.info("the application has no lifespan, and is served without one: %s", _in_words(error))
        elif self._ending.is_set():
            await log.error("the application failed while it was shutting down", exc_info=error)
            if not self._stopped.is_set():
                self._failure = LifespanFailed("shutdown", _in_words(error))
        elif self._started.is_set():
            await log.error("the lifespan of the application failed; the server drains, and ends", exc_info=error)
            self._failure = LifespanFailed("lifespan", _in_words(error))
            self._failed.set()
        else:
            await log.error("the lifespan of the application failed; its requests are served on", exc_info=error)

    async def start_up(self) -> None:
        """Wait for the application's start; raises LifespanFailed or LifespanTimeoutError."""
        with trio.move_on_after(self._config.startup_timeout) as limit:
            await self._started.wait()
        if limit.cancelled_caught:
            raise LifespanTimeoutError("startup")
        self._check()

    async def failed(self) -> None:
        """Wait until the application has failed while it was served. Cancellation: ends the wait only."""
        await self._failed.wait()

    async def shut_down(self) -> None:
        """Tell the application to end, and wait until it has; raises as :meth:`start_up`."""
        self._ending.set()
        with trio.move_on_after(self._config.shutdown_timeout) as limit:
            await self._stopped.wait()
        if limit.cancelled_caught:
            raise LifespanTimeoutError("shutdown")
        self._check()

    def _check(self) -> None:
        if self._failure is not None:
            raise self._failure

    async def _receive(self) -> Message:
        if not self._has_received:
            self._has_received = True
            await trio.lowlevel.checkpoint()
            return {"type": "lifespan.startup"}
        await self._ending.wait()
        if self._has_all:
            await trio.sleep_forever()
        self._has_all = True  # now, since an earlier call may have been cancelled
        return {"type": "lifespan.shutdown"}

    async def _send(self, message: Message) -> None:
        await trio.lowlevel.checkpoint()
        match message["type"]:
            case "lifespan.startup.complete":
                self._started.set()
            case "lifespan.shutdown.complete":
                self._stopped.set()
            case "lifespan.startup.failed":
                self._fail("startup", message)
            case "lifespan.shutdown.failed":
                self._fail("shutdown", message)
            case other:
                raise UnexpectedMessageError(other)

    def _fail(self, stage: str, message: Message) -> None:
        """Raise the failure in the application, so that it ends."""
        early = stage == "shutdown" and self._started.is_set() and not self._ending.is_set()
        self._failure = LifespanFailed("lifespan" if early else stage, message.get("message", ""))
        if early:
            self._failed.set()
        raise self._failure


def _in_words(error: Exception) -> str:
    cause = bare(error)
    return f"{type(cause).__name__}: {cause}"
