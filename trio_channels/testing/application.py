"""The base of the communicators: it stands for the application's server, and a test controls it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import AsyncExitStack
from http.cookies import Morsel
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, cast
from urllib.parse import quote, unquote, urlsplit

import outcome
import trio

from .._asgi.protocol import ASGIApplication, Message, Scope
from .._concurrency.exception_groups import split_cancelled
from .._threads.database import run_in_thread

if TYPE_CHECKING:
    from django.contrib.auth.models import AbstractBaseUser


class _Late(trio.TooSlowError, TimeoutError):
    """Tests for Trio expect the one, tests that were written for Channels the other."""


class ApplicationCommunicator:
    """Runs an ASGI application, and exchanges messages with it.

    Args:
        application: the ASGI application.
        scope: the application's scope.

    Use it as an async context manager: the application then runs in a nursery of the block, and is cancelled at the end
    of the block if it still runs. Without the block the application runs in a system task, from the first call that
    needs it until :meth:`wait` has ended it, or until the end of the Trio run.

    A timeout raises a :exc:`trio.TooSlowError` that is a :exc:`TimeoutError`, too, as in Channels. Only a timeout of
    :meth:`wait` cancels the application. An exception of the application is raised once, by the first method that finds
    the application ended, or by the end of the block.

    Cancellation: a cancelled method does not end the application, and loses no message.

    Attributes:
        timeout: the default timeout in seconds; 1, as in Channels. For slow machines, set a longer one on the class, in
            a ``conftest.py``.
    """

    timeout: float = 1.0

    def __init__(self, application: ASGIApplication, scope: Scope) -> None:
        self.application = application
        self.scope = scope
        self._to_application, self._input = trio.open_memory_channel[Message](math.inf)
        self._output, self._from_application = trio.open_memory_channel[Message](math.inf)
        self._cancel_scope = trio.CancelScope()
        self._ended = trio.Event()
        self._started = False
        self._failure: BaseException | None = None
        self._stack: AsyncExitStack | None = None
        self._nursery: trio.Nursery | None = None

    def __repr__(self) -> str:
        state = "ended" if self._ended.is_set() else "running" if self._started else "not started"
        return f"<{type(self).__name__} of a {self.scope['type']!r} scope, {state}>"

    async def __aenter__(self) -> Self:
        self._stack = AsyncExitStack()
        self._nursery = await self._stack.enter_async_context(trio.open_nursery())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            if error is None:
                await self._before_cancel()
        finally:
            self._cancel_scope.cancel()
            await cast(AsyncExitStack, self._stack).aclose()  # entered by __aenter__()
        if error is None:
            self._raise_failure()

    async def _before_cancel(self) -> None:
        """Called at the end of the block."""

    def _start(self) -> None:
        if self._started:
            return
        self._started = True
        if self._nursery is not None:
            self._nursery.start_soon(self._run, name=self)
        else:
            trio.lowlevel.spawn_system_task(self._run, name=self)

    async def _run(self) -> None:
        with self._cancel_scope:
            result = await outcome.acapture(self.application, self.scope, self._receive, self._send)
            if isinstance(result, outcome.Error):
                cancellation, self._failure = split_cancelled(result.error)
                if cancellation is not None:
                    self._ended.set()
                    raise cancellation
        self._ended.set()
        self._output.close()

    async def _receive(self) -> Message:
        return await self._input.receive()

    async def _send(self, message: Message) -> None:
        await trio.lowlevel.checkpoint()
        self._output.send_nowait(message)  # the buffer has no limit
        self._sent(message)

    def _sent(self, message: Message) -> None:
        """Called with each message that the application sends."""

    def _raise_failure(self) -> None:
        failure, self._failure = self._failure, None
        if failure is not None:
            try:
                raise failure
            finally:
                del failure  # its traceback holds this frame

    async def wait(self, timeout: float | None = None) -> None:
        """Wait for the application to end. Cancel it after the timeout.

        Args:
            timeout: in seconds; :attr:`timeout` by default.

        Raises:
            trio.TooSlowError: the application did not end in time, and was cancelled.
            Exception: the application's exception.

        Cancellation: ends only the wait.
        """
        timeout = self.timeout if timeout is None else timeout
        self._start()
        with trio.move_on_after(timeout):
            await self._ended.wait()
        in_time = self._ended.is_set()
        if not in_time:
            self._cancel_scope.cancel()
            with trio.CancelScope(shield=True):
                await self._ended.wait()
        self._raise_failure()
        if not in_time:
            raise _Late(f"the application did not end within {timeout:g} seconds, and was cancelled")

    def stop(self, exceptions: bool = True) -> None:
        """Cancel the application, without waiting for it.

        Args:
            exceptions: raise the application's exception, if it has ended with one.
        """
        self._cancel_scope.cancel()
        if exceptions:
            self._raise_failure()

    async def login(self, user: AbstractBaseUser, backend: str | None = None) -> None:
        """Log the client in without a password, as Django's ``Client.force_login``: with the cookie of a new session.

        The application must read sessions: put it behind AuthMiddlewareStack, or take that of ``asgi.py``. For a
        consumer alone, set ``communicator.scope["user"]`` instead.

        Args:
            user: a stored user.
            backend: the path of the authentication backend; the first that is configured by default.

        Raises:
            RuntimeError: the application has already been started.

        Cancellation: the wait for a thread can be cancelled.
        """
        from django.test import Client

        client = Client()
        await run_in_thread(client.force_login, user, backend)
        self.add_cookies(client.cookies)

    def add_cookies(self, cookies: Mapping[str, str | Morsel[str]]) -> None:
        """Have the client send cookies, such as those of Django's test client, ``client.cookies``.

        Args:
            cookies: name -> value.

        Raises:
            RuntimeError: the application has already been started.
        """
        if self._started:
            raise RuntimeError("cookies are part of the request; expected them before it is sent")
        pairs = [f"{name}={each if isinstance(each, str) else each.coded_value}" for name, each in cookies.items()]
        headers = list(self.scope.get("headers", ()))
        before = [value for name, value in headers if name.lower() == b"cookie"]
        others = [(name, value) for name, value in headers if name.lower() != b"cookie"]
        self.scope["headers"] = [*others, (b"cookie", b"; ".join([*before, "; ".join(pairs).encode()]))]

    async def send_input(self, message: Message) -> None:
        """Send the application an ASGI event. An application that has ended ignores it.

        Raises:
            Exception: the application's exception, if it has ended with one.

        Cancellation: the event may not be sent.
        """
        self._start()
        self._raise_failure()
        await self._to_application.send(message)

    async def receive_output(self, timeout: float | None = None) -> Message:
        """Wait for the application's next message.

        Args:
            timeout: in seconds; :attr:`timeout` by default.

        Raises:
            trio.TooSlowError: no message came in time; the application still runs.
            Exception: the application's exception, if it has ended with one.
            EOFError: the application has ended without another message.

        Cancellation: loses no message.
        """
        timeout = self.timeout if timeout is None else timeout
        self._start()
        with trio.move_on_after(timeout):
            try:
                return await self._from_application.receive()
            except trio.EndOfChannel:
                self._raise_failure()
                raise EOFError("expected a message from the application; it has ended, and sent nothing more") from None
        raise _Late(f"expected a message from the application; it sent nothing within {timeout:g} seconds")

    async def receive_nothing(self, timeout: float = 0.1, interval: float = 0.01) -> bool:
        """Whether the application sends no message before the timeout.

        Args:
            timeout: in seconds.
            interval: accepted because Channels has it, and ignored: nothing is polled.

        Raises:
            Exception: the application's exception, if it has ended with one before this call.

        Cancellation: loses no message.
        """
        self._start()
        self._raise_failure()
        with trio.move_on_after(timeout):
            await self._ended.wait()
            # It sends no more; messages from before may wait in the buffer.
        return self._from_application.statistics().current_buffer_used == 0


def expect(message: Message, kind: str) -> None:
    """Fail unless the application's message has this type."""
    if message["type"] != kind:
        raise AssertionError(f"expected a message of type {kind!r} from the application; got {message!r}")


def request_target(path: str) -> dict[str, Any]:
    """The keys of a scope for a path and its query, percent-encoded or not, with or without a first slash."""
    parts = urlsplit(path if path.startswith("/") or "://" in path else f"/{path}")
    return {
        "path": unquote(parts.path),
        "raw_path": quote(parts.path, safe="/%:@!$&'()*+,;=~").encode("ascii"),
        "query_string": parts.query.encode(),
    }
