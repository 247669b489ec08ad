"""The client of one HTTP request: messages from and to it, and its disconnect.

Synchronous code cannot be stopped, so no task watches for the disconnect while it runs. :meth:`Client.while_there` runs
code that can be cancelled. On the direct path, see :mod:`trio_channels._connection.direct`, the server cancels it.
Otherwise a second task waits for the event.
"""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar, TypeVarTuple

import trio

from .._asgi import protocol
from .._asgi.protocol import Message, Receive, Scope, Send
from .._concurrency import YIELD_EVERY
from .._connection.direct import inbox_behind, parts_sender_behind
from ..exceptions import ServerProtocolError
from .resolving import Resolved

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


def with_one_cookie_header(scope: Scope) -> Scope:
    """The scope, its cookies in one header: HTTP/2 splits them (RFC 9113, 8.2.3), and Django 5.2 reads only one."""
    cookies = []
    for name, value in scope.get("headers", ()):
        if name == b"cookie":
            cookies.append(value)
    if len(cookies) < 2:
        return scope
    others = [pair for pair in scope["headers"] if pair[0] != b"cookie"]
    return {**scope, "headers": [*others, (b"cookie", b"; ".join(cookies))]}


class ClientLeft(BaseException):
    """The client has gone. A BaseException: no middleware must take it for a failure of the view and answer it."""


class Client:
    """One client.

    `answered`: a response has been started, with `status`; `mount`, `path`: the mount point, and the path below it;
    `resolved`: the view, once the URL is resolved; `route`: its pattern; `request`: Django's, once it is made.
    """

    __slots__ = (
        *("_inbox", "_more", "_protocol", "_receive", "_send", "_sends"),
        *("answered", "mount", "path", "request", "resolved", "route", "scope", "status", "stream_scope"),
        "stream_task",
    )

    mailbox: Any = None  # a view has no channel of its own

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scope = scope
        self._receive = receive
        self._inbox = inbox_behind(receive, scope)
        self._send = send
        self._sends = 0
        self._more = True  # of the request's body is to come
        self.answered = False
        self.status = 0
        self.mount: str = ""
        self.path: str = ""
        self.resolved: Resolved | None = None
        self.route: str = ""
        self.request: Any = None
        self.stream_scope: trio.CancelScope | None = None  # with the task, while the response is sent part by part
        self.stream_task: trio.lowlevel.Task | None = None
        self._protocol = protocol.Protocol(scope)

    def __str__(self) -> str:
        return protocol.describe(self.scope)

    def __repr__(self) -> str:
        return f"<Client of {protocol.describe(self.scope)}{', gone' if self._protocol.disconnected else ''}>"

    @property
    def is_direct(self) -> bool:
        """Whether the request has come over the direct path."""
        return self._inbox is not None

    async def next_part(self) -> Message:
        """The next event with a part of the request's body; ClientLeft if the client has gone."""
        event: Message = await self._receive()
        self._protocol.received(event)
        if self._protocol.disconnected:
            raise ClientLeft
        self._more = event.get("more_body", False)
        return event

    def has_no_body(self) -> bool:
        """Whether the request has come over the direct path, and has no body: then there is nothing to wait for."""
        if self._inbox is None or not self._inbox.take_if(protocol.NO_BODY):
            return False
        self._more = False
        return True

    async def drain(self) -> None:
        """Read the rest of the request, so that the client reads the answer before the connection is reset."""
        while self._more:
            await self.next_part()

    async def send(self, message: Message) -> None:
        """Send a message; ClientLeft if the server says that the client has gone."""
        if not self.answered:
            self.answered, self.status = True, message["status"]
        self._sends += 1
        # A server's send may neither wait nor raise when its client has gone: another task must get to learn of that.
        if self._sends % YIELD_EVERY == 0:
            await trio.lowlevel.checkpoint()
        try:
            await self._send(message)
        except OSError:  # the specification demands it of servers from version 2.4 on
            raise ClientLeft from None

    async def send_parts(self, parts: list[bytes], renew: Callable[[], object]) -> None:
        """Send parts of a response's body, all at once if nothing is between the server and this; as :meth:`send`.

        `renew` is called whenever the client has taken something, and more is to come.
        """
        send_parts = parts_sender_behind(self._send)
        if send_parts is None:
            for part in parts:
                renew()
                await self.send({"type": "http.response.body", "body": part, "more_body": True})
            return
        renew()
        try:
            await send_parts(parts, renew)
        except OSError:
            raise ClientLeft from None

    async def respond(self, start: Message, body: Message) -> None:
        """Send a whole response; ClientLeft if the server says that the client has gone."""
        self.answered, self.status = True, start["status"]
        try:
            await self._send(start)
            await self._send(body)
        except OSError:
            raise ClientLeft from None

    async def while_there(self, function: Callable[[*Ts], Awaitable[T]], *args: *Ts) -> T:
        """Run an async function, cancelled when the client leaves; the request's body has been read.

        A cancellation that comes too late for the function is seen at the next checkpoint.
        """
        if self._protocol.disconnected:
            raise ClientLeft
        if self._inbox is None:
            return await self._while_watched(function, *args)
        with trio.CancelScope() as scope:

            def leave(disconnect: Message) -> None:
                self._protocol.received(disconnect)
                scope.cancel()

            self._inbox.when_over(leave)
            try:
                return await function(*args)
            finally:
                self._inbox.no_longer(leave)
        raise ClientLeft

    async def _while_watched(self, function: Callable[[*Ts], Awaitable[T]], *args: *Ts) -> T:
        """As :meth:`while_there`, with a task that waits for the disconnect."""
        results: list[T] = []
        failure: BaseException = ClientLeft()

        async def watch() -> None:
            nonlocal failure
            event = await self._receive()
            try:
                self._after_the_end(event)
            except ServerProtocolError as error:
                failure = error
            nursery.cancel_scope.cancel()

        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(watch)
                try:
                    results.append(await function(*args))
                except (Exception, ClientLeft, SystemExit, KeyboardInterrupt) as error:
                    failure = error  # raised below, where no nursery puts it into a group
                nursery.cancel_scope.cancel()
        except* trio.Cancelled:
            if not results:
                raise
            # The result may be a response, which must be closed. The next checkpoint raises the cancellation again.
        if results:
            return results[0]
        raise failure

    @property
    def user(self) -> Any:
        """The user of the request, if the view has asked for it: then Django's middleware has kept it."""
        kept = vars(self.request) if self.request is not None else {}
        return kept.get("_cached_user") or kept.get("_acached_user")

    @property
    def session(self) -> Any:
        """The session of the request."""
        return getattr(self.request, "session", None)

    @contextmanager
    def streaming(self) -> Iterator[None]:
        """In the block, which sends a stream, it can be broken off from outside; then ClientLeft is raised."""
        with trio.CancelScope() as scope:
            self.stream_scope, self.stream_task = scope, trio.lowlevel.current_task()
            try:
                yield
            finally:
                self.stream_scope = self.stream_task = None
        if scope.cancelled_caught:
            raise ClientLeft

    def has_task(self, task: trio.lowlevel.Task | None) -> bool:
        """Whether a task is that of the stream, or one below it."""
        while task is not None and task is not self.stream_task:
            task = None if task.parent_nursery is None else task.parent_nursery.parent_task
        return task is not None

    def close_from_outside(self, code: int, reason: str) -> bool:
        """Break a stream off; every other request ends by itself."""
        if self.stream_scope is None:
            return False
        self.stream_scope.cancel()
        return True

    def _after_the_end(self, event: Message) -> None:
        self._protocol.received(event)
        if not self._protocol.disconnected:
            raise ServerProtocolError(
                f"the server delivered {event['type']!r} after the whole request body; expected 'http.disconnect'"
            )


def while_client_is_there(view: Callable[..., Any]) -> Callable[..., Any]:
    """The async view, cancelled when the client of its request leaves."""

    # No functools.wraps: it would copy the mark by which a class-based view says that it is async.
    async def cancellable(request: Any, *args: Any, **kwargs: Any) -> Any:
        return await request.trio_client.while_there(functools.partial(view, request, *args, **kwargs))

    return cancellable
