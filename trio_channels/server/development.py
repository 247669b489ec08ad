"""A server on Trio with the interface of Django's development server, for ``runserver`` and the live servers of tests.

The interface is that of :class:`socketserver.BaseServer`: the constructor binds the address; ``serve_forever()`` serves
in the calling thread, which may be any; ``shutdown()`` is called from another thread.
"""

from __future__ import annotations

import atexit
import logging
import signal
import socket
import threading
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, nullcontext, suppress
from typing import cast

import trio
from django.apps import apps
from hypercorn.config import Config
from hypercorn.typing import Framework

from .._asgi.protocol import ASGIApplication
from .._concurrency.system import take_free_address
from ..staticfiles import StaticFilesHandler
from . import serve

#: Seconds for requests and clean-up at the end; short, since a developer waits for it.
GRACE = 2.0
BACKLOG = 100
#: The format of Django's development server.
ACCESS_LOG = '"%(m)s %(Uq)s HTTP/%(H)s" %(s)s %(B)s'

_STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class DevelopmentServer:
    """One ASGI application, served on one address by one Trio run; the arguments are those that Django passes."""

    def __init__(
        self,
        server_address: tuple[str, int],
        request_handler_class: object = None,
        *,
        ipv6: bool = False,
        allow_reuse_address: bool = True,
        around: Callable[[], AbstractAsyncContextManager[None]] | None = None,
    ) -> None:
        self._socket = socket.socket(socket.AF_INET6 if ipv6 else socket.AF_INET)
        try:
            if allow_reuse_address:
                take_free_address(self._socket)
            self._socket.bind(server_address)
            self._socket.listen(BACKLOG)
        except OSError:
            self._socket.close()
            raise
        self.server_address = self._socket.getsockname()
        self.server_port: int = self.server_address[1]
        self._around = around or nullcontext
        self._application: ASGIApplication | None = None
        self._token: trio.lowlevel.TrioToken | None = None
        self._stop: trio.Event | None = None
        self._wanted = True
        self._ended = threading.Event()

    def set_app(self, application: ASGIApplication) -> None:
        """Set the application to serve."""
        self._application = application

    def serve_forever(self, started: Callable[[], object] = lambda: None) -> None:
        """Serve until :meth:`shutdown`, or, in the main thread, until a signal, which raises KeyboardInterrupt."""
        # The thread may be a daemon, such as the autoreloader's: close connections when the process exits.
        atexit.register(self.shutdown)
        try:
            signalled = trio.run(self._main, started)
        finally:
            self.server_close()  # Django does not, after an error
            self._ended.set()
            atexit.unregister(self.shutdown)
        if signalled:
            raise KeyboardInterrupt

    def shutdown(self) -> None:
        """End :meth:`serve_forever`, and wait for its end for twice the grace at most."""
        self._wanted = False
        if self._token is not None and self._stop is not None:
            with suppress(trio.RunFinishedError):
                self._token.run_sync_soon(self._stop.set)
            self._ended.wait(2 * GRACE)

    def server_close(self) -> None:
        """Close the socket."""
        self._socket.close()

    async def _main(self, started: Callable[[], object]) -> bool:
        self._served = trio.Event()
        stop = self._stop = trio.Event()
        self._token = trio.lowlevel.current_trio_token()
        if not self._wanted:
            return False
        signals: list[int] = []
        async with self._around(), trio.open_nursery() as nursery:
            if threading.current_thread() is threading.main_thread():
                await nursery.start(self._wait_for_signal, stop, signals)
            with trio.CancelScope() as starting:
                nursery.start_soon(self._cancel_after, stop, starting)
                await nursery.start(self._serve, stop)
            if starting.cancelled_caught:  # told to end before the application has started
                nursery.cancel_scope.cancel()
                return bool(signals)
            started()
            await stop.wait()
            nursery.cancel_scope.deadline = trio.current_time() + GRACE
            await self._served.wait()
            nursery.cancel_scope.cancel()
        return bool(signals)

    @staticmethod
    async def _wait_for_signal(
        stop: trio.Event, seen: list[int], task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        with trio.open_signal_receiver(*_STOP_SIGNALS) as signals:
            task_status.started()
            async for number in signals:
                seen.append(number)
                stop.set()

    @staticmethod
    async def _cancel_after(stop: trio.Event, starting: trio.CancelScope) -> None:
        await stop.wait()
        starting.cancel()  # without effect once the server has started

    async def _serve(self, stop: trio.Event, task_status: trio.TaskStatus[list[str]]) -> None:
        application = cast(Framework, self._application)
        owner = cast("trio.TaskStatus[list[str]]", _Owner(self._socket, task_status))
        await serve(application, self._config(), shutdown_trigger=stop.wait, task_status=owner)
        self._served.set()

    def _config(self) -> Config:
        config = Config()
        config.bind = [f"fd://{self._socket.fileno()}"]
        config.graceful_timeout = GRACE / 2
        config.accesslog = logging.getLogger("django.server")
        config.access_log_format = ACCESS_LOG
        config.errorlog = logging.getLogger("hypercorn.error")
        return config


class _Owner:
    """Gives the socket to the server once it serves. Before, it is closed by ``server_close()``."""

    def __init__(self, sock: socket.socket, task_status: trio.TaskStatus[list[str]]) -> None:
        self._socket = sock
        self._task_status = task_status

    def started(self, binds: list[str]) -> None:
        self._socket.detach()
        self._task_status.started(binds)


def with_static_files(application: ASGIApplication) -> ASGIApplication:
    """The application behind its static files, if ``django.contrib.staticfiles`` is installed."""
    return StaticFilesHandler(application) if apps.is_installed("django.contrib.staticfiles") else application
