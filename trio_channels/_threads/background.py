"""The background Trio run of the process, for threads for which no Trio run waits.

It is one thread, started on first use; a forked child starts its own. Each of its tasks belongs to a caller that waits
for it. It opens channel layers on first use, and closes them when the process exits.
"""

from __future__ import annotations

import atexit
import threading
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TypeVar

import trio

from .._concurrency.system import after_fork
from ..exceptions import BridgeError
from ..layers.on_demand import on_demand

T = TypeVar("T")

#: Seconds that an async function has to clean up after its waiting thread was interrupted.
INTERRUPTED_GRACE = 10.0


class Background:
    """The background run of this process; its one instance is :data:`background`."""

    def __init__(self) -> None:
        self._not_started()
        after_fork(self._not_started)
        atexit.register(self._end)

    def _not_started(self) -> None:
        self._lock = threading.Lock()
        self._token: trio.lowlevel.TrioToken | None = None
        self._thread: threading.Thread | None = None
        self._stop: trio.Event | None = None
        self._ended = False

    def run(self, function: Callable[[], Awaitable[T]]) -> T:
        """Run an async function in the background run, and wait for it; an interrupted wait cancels it."""
        token, scope, over = self._running(), trio.CancelScope(), threading.Event()

        async def cancellable() -> T:
            try:
                with scope:
                    return await function()
            finally:
                over.set()
            raise BridgeError("the call was interrupted")

        try:
            return trio.from_thread.run(cancellable, trio_token=token)
        except BaseException:
            with suppress(trio.RunFinishedError):
                token.run_sync_soon(scope.cancel)
                over.wait(INTERRUPTED_GRACE)
            raise

    def _running(self) -> trio.lowlevel.TrioToken:
        """The token of the run, which is started if necessary."""
        with self._lock:
            if self._ended:
                raise BridgeError("async_to_sync() was called while the process is ending")
            if self._thread is None or not self._thread.is_alive():
                self._token = None
                started = threading.Event()
                # A daemon: for any other thread the interpreter would wait before it calls _end().
                self._thread = threading.Thread(
                    target=self._serve, args=(started,), name="trio-channels background", daemon=True
                )
                self._thread.start()
                started.wait()
            token = self._token
        if token is None:
            raise BridgeError("the background Trio run could not be started; the reason is on stderr")
        return token

    def _serve(self, started: threading.Event) -> None:
        try:
            trio.run(self._main, started)
        finally:
            started.set()

    async def _main(self, started: threading.Event) -> None:
        async with on_demand():
            self._stop = trio.Event()
            self._token = trio.lowlevel.current_trio_token()
            started.set()
            await self._stop.wait()

    def _end(self) -> None:
        self._ended = True
        if self._token is not None and self._thread is not None and self._stop is not None:
            with suppress(trio.RunFinishedError):
                self._token.run_sync_soon(self._stop.set)
            self._thread.join()


background = Background()
