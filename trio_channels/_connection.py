"""One connection: the nursery that everything it starts lives in, and what happens on every way out.

    outer nursery
      pump               the only caller of the server's receive(); reads ahead a bounded number of events
      application nursery
        body             the dispatcher of a consumer, or a WebSocket endpoint
        start_soon()     the application's background tasks

The rules:

1. The pump always drains ``receive``. A server that is not drained stops answering pings and may leak the connection
   (hypercorn blocks its reader after 10 unread events).
2. ``send`` checks the message against the legal-message table, is a cancellation point, lets other tasks run at the
   latest every 16th time, and raises :class:`ConnectionClosed` once the client has gone. (hypercorn's own ``send`` is a
   silent no-op after a disconnect, without a checkpoint: a loop around it freezes the process.)
3. When the client goes, the application may finish what it is at, for ``disconnect_timeout`` seconds, or is cancelled
   at once with ``cancel_on_disconnect``. Events that came before are handled first.
4. The ending (the consumer's ``disconnect``) runs exactly once on every way out: after the client's disconnect inside
   the living nursery; after an error, a cancellation by the server or a time-out in a shielded scope with a deadline.
5. A failing application ends its own connection only: 1011 to a WebSocket client, and the exception goes on to the
   server, which logs it once; a note in it says which connection it was. A single exception is raised bare, not in an
   exception group: the nurseries here are nobody's business.
6. ``ConnectionClosed``, once the connection is closed, and ``StopConsumer`` are normal ends.
"""

from __future__ import annotations

import logging
import math
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import trio

from . import _asgi
from ._asgi import Message, Receive, Scope, Send, State
from ._bell import Bell
from ._limits import Limits
from .exceptions import ConnectionClosed, StopConsumer

logger = logging.getLogger("trio_channels.connection")

#: RFC 6455, section 7.4.1, and the registry it started.
NORMAL, NO_STATUS, ABNORMAL, INTERNAL_ERROR, SERVICE_RESTART, TRY_AGAIN_LATER = 1000, 1005, 1006, 1011, 1012, 1013

#: A loop around ``send`` lets other tasks run at the latest after this many messages. A switch costs several times what
#: a send otherwise does, and a server's send usually switches too.
_YIELD_EVERY = 16

#: What servers raise when they write to a client that has gone.
_BROKEN = (OSError, trio.BrokenResourceError, trio.ClosedResourceError)


class Connection:
    """The client's side of one connection: events read ahead, messages checked on their way out.

    Args:
        scope, receive, send: the ASGI triple.
        limits: see :class:`Limits`.
        cancel_on_disconnect: cancel the application at once when the client goes, unless it is waiting for an event,
        and
            so is about to learn it.
        finish_reading: nor while there are events that it has not taken; for ``disconnect_timeout`` at most.

    Attributes:
        bell: rung whenever there may be something new to look at.
        closed: why nothing can be sent any more, or None.
        on_closed: called when that becomes known.
        activity: what the application is doing now, for log lines; the dispatcher's to set.
    """

    def __init__(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        limits: Limits | None = None,
        *,
        cancel_on_disconnect: bool = False,
        finish_reading: bool = False,
    ) -> None:
        self.scope = scope
        self.limits = limits or Limits()
        self.protocol = _asgi.Protocol(scope)
        self.bell = Bell()
        self.closed: ConnectionClosed | None = None
        self.on_closed: Callable[[], None] | None = None
        self.activity: str | None = None
        self.application_scope = trio.CancelScope()
        self.disconnected = trio.Event()
        self._nursery: trio.Nursery | None = None
        self._receive = receive
        self._send = send
        self._cancel_on_disconnect = cancel_on_disconnect
        self._finish_reading = finish_reading
        self._events: deque[Message] = deque()
        self._room = Bell()
        self._sends = 0
        self._ended = False
        # Whether the server may still have events that somebody must read; see rule 1.
        self._unread = self.protocol.kind == "websocket"

    def __repr__(self) -> str:
        return (
            f"<Connection {_asgi.describe(self.scope)}: {self.protocol.state.value}, {len(self._events)} events waiting"
            f"{', ' + str(self.closed) if self.closed else ''}>"
        )

    # -- what the application uses --------------------------------------------------------------------------------

    @property
    def nursery(self) -> trio.Nursery:
        """The application's nursery.

        Raises:
            RuntimeError: the connection is not being run.
        """
        if self._nursery is None:
            raise RuntimeError("the connection has no nursery: it has not been started, or has ended")
        return self._nursery

    @property
    def over(self) -> bool:
        """Whether nothing can be sent any more, or a WebSocket's close is on its way."""
        return self.closed is not None or (self.protocol.kind == "websocket" and self.protocol.state is State.CLOSED)

    def start_soon(self, function: Callable[..., Awaitable[object]], *args: Any, name: object = None) -> None:
        """Start a background task that ends with the connection.

        Its exception ends the connection as a handler's would. ``ConnectionClosed`` ends only the task.
        """
        self.nursery.start_soon(self._background, function, args, name=name or function)

    async def _background(self, function: Callable[..., Awaitable[object]], args: tuple[Any, ...]) -> None:
        try:
            await function(*args)
        except ConnectionClosed:
            if self.closed is None:
                raise
        except Exception as error:
            error.add_note(f"in the background task {getattr(function, '__qualname__', function)}")
            raise

    def take_event(self) -> Message | None:
        """The next event of the client, or None where none waits."""
        if not self._events:
            return None
        event = self._events.popleft()
        self._room.ring()
        return event

    async def send(self, message: Message, *, checked: bool = False) -> None:
        """Send an ASGI message.

        Args:
            message: what the ASGI specification allows in this state.
            checked: :meth:`check` has been called for it.

        Raises:
            ConnectionClosed: the client has gone, or this side has closed.
            IllegalMessage: the message is malformed or not allowed now.

        Cancellation: seen before the message goes to the server; later it may or may not arrive.
        """
        self._sends += 1
        if self.closed is not None or self._sends % _YIELD_EVERY == 0:
            await trio.lowlevel.checkpoint()
        else:
            await trio.lowlevel.checkpoint_if_cancelled()
        if not checked:
            self.check(message)
        try:
            await self._send(message)
        except _BROKEN as error:
            self._set_closed(ConnectionClosed(ABNORMAL, "the server could not write to the client"))
            raise ConnectionClosed(ABNORMAL, str(error)) from error
        if message["type"] != "websocket.send":
            self._sent(message)

    def check(self, message: Message) -> None:
        """Check a message and advance the state; callable from any thread. Raises as :meth:`send`."""
        if self.closed is not None:
            raise ConnectionClosed(self.closed.code, self.closed.reason)
        if self.over:
            raise ConnectionClosed(NORMAL, "closed by this side")
        self.protocol.sending(message)

    def _sent(self, message: Message) -> None:
        """Draw the consequences of a message that the server has taken."""
        kind, last = message["type"], not message.get("more_body")
        if kind == "websocket.accept":
            if not self.disconnected.is_set():
                self.application_scope.deadline = math.inf
        elif kind == "websocket.close":
            self._closed_by_us(message.get("code", NORMAL), message.get("reason") or "")
        elif kind == "websocket.http.response.body" and last:
            self._closed_by_us(NORMAL, "denied")
        elif kind == "http.response.body" and last:
            self.bell.ring()

    async def close(self, code: int = NORMAL, reason: str = "") -> None:
        """Close a WebSocket, or deny one that was not accepted; does nothing once it is closed.

        Raises:
            IllegalMessage: the code or the reason must not be sent.
        """
        if self.closed is None and self.protocol.state in (State.OPEN, State.CONNECTING):
            message = {"type": "websocket.close", "code": code}
            if reason:
                message["reason"] = reason
            await self.send(message)

    def expire(self, seconds: float) -> None:
        """Cancel the application unless it has ended by itself in so many seconds."""
        scope = self.application_scope
        scope.deadline = min(scope.deadline, trio.current_time() + seconds)

    # -- the state ------------------------------------------------------------------------------------------------

    def _closed_by_us(self, code: int, reason: str) -> None:
        self._set_closed(ConnectionClosed(code, reason))
        if not self.disconnected.is_set():
            self.application_scope.deadline = trio.current_time() + self.limits.close_timeout
        self.bell.ring()

    def _set_closed(self, why: ConnectionClosed) -> None:
        if self.closed is None:
            self.closed = why
            if self.on_closed is not None:
                self.on_closed()

    def _client_gone(self, event: Message) -> None:
        self._set_closed(ConnectionClosed(event.get("code"), event.get("reason") or ""))
        self.disconnected.set()
        will_learn = self.bell.waited_for or (self._finish_reading and self._events)
        if self._cancel_on_disconnect and not will_learn:
            self.application_scope.cancel()
        else:
            self.expire(self.limits.disconnect_timeout)

    async def pump(self) -> None:
        """Read events from the server until the client has gone; see rule 1."""
        while not self.disconnected.is_set():
            event = await self._receive()
            self.protocol.received(event)
            if self.protocol.kind == "http":
                self._unread = event.get("more_body", False)
            if self.protocol.disconnected:
                self._client_gone(event)
            while len(self._events) >= self.limits.read_ahead and not self._ended:
                await self._room.wait()
            if not self._ended:
                self._events.append(event)
                self.bell.ring()

    async def drain(self) -> None:
        """After the end: have the pump read on, and forget, until the server confirms; at most ``close_timeout``."""
        self._ended = True
        self._events.clear()
        self._room.ring()
        if self._unread and not self.disconnected.is_set():
            with trio.move_on_after(self.limits.close_timeout):
                await self.disconnected.wait()


async def supervise(
    connection: Connection,
    body: Callable[[], Awaitable[Message | None]],
    ending: Callable[[Message], Awaitable[object]] | None = None,
) -> None:
    """Run an application's side of a connection by the module's rules.

    Args:
        connection: not yet run.
        body: the application; ends when it has nothing more to do with the client, and returns the client's disconnect
            event if it came to it.
        ending: called once with the disconnect event, the server's or, where there was none, one made here.

    Raises:
        Exception: what the body, a background task or the ending raised, bare if it is one.

    Cancellation: the body is cancelled; the ending runs in a shielded scope of at most ``disconnect_timeout``; a
    WebSocket client is told 1012.
    """
    final = _Ending(connection, ending)
    failure: BaseException | None = None
    try:
        async with trio.open_nursery() as outer:
            outer.start_soon(connection.pump)
            failure = await _run_body(connection, body, final)
            await _clean_up(connection, final, failure)
            if not isinstance(failure, trio.Cancelled):
                await connection.drain()
            if failure is not None:
                raise failure
            outer.cancel_scope.cancel()
    except BaseException as raised:
        failure = _abnormal(raised, connection)
    if failure is not None:
        raise failure


async def _run_body(
    connection: Connection, body: Callable[[], Awaitable[Message | None]], final: _Ending
) -> BaseException | None:
    """Run the body and, where it ends by itself, the ending; return what went wrong."""
    scope = connection.application_scope
    if connection.protocol.state is State.CONNECTING:
        scope.deadline = trio.current_time() + connection.limits.accept_timeout
    failure: BaseException | None = None
    try:
        with scope:
            async with trio.open_nursery() as nursery:
                connection._nursery = nursery
                event = await body()
                scope.deadline = math.inf
                if event is not None:
                    await final.run(event)
                nursery.cancel_scope.cancel()
    except BaseException as raised:
        failure = _abnormal(raised, connection)
    connection._nursery = None
    if scope.cancelled_caught:
        _explain_cancellation(connection)
    if isinstance(failure, Exception):
        doing = f"in the handler of {connection.activity!r} on " if connection.activity else "on "
        failure.add_note(f"{doing}{_asgi.describe(connection.scope)}")
    return failure


async def _clean_up(connection: Connection, final: _Ending, failure: BaseException | None) -> None:
    """Tell the client, then run the ending if it has not run; shielded, bounded."""
    code = NORMAL if failure is None else SERVICE_RESTART if isinstance(failure, trio.Cancelled) else INTERNAL_ERROR
    # A handshake that failed is the server's to answer, with 500.
    answerable = (State.OPEN,) if code == INTERNAL_ERROR else (State.OPEN, State.CONNECTING)
    if connection.closed is None and connection.protocol.state in answerable:
        with trio.CancelScope(shield=True, deadline=trio.current_time() + connection.limits.close_timeout):
            try:
                await connection.close(code)
            except ConnectionClosed:
                pass  # it has just gone by itself
    closed = connection.closed
    await final.run(
        {
            "type": f"{connection.protocol.kind}.disconnect",
            "code": closed.code if closed is not None else code,
            "reason": closed.reason if closed is not None else "",
        }
    )


class _Ending:
    """The application's last word, said once, shielded from cancellation for ``disconnect_timeout`` seconds."""

    def __init__(self, connection: Connection, function: Callable[[Message], Awaitable[object]] | None) -> None:
        self._connection = connection
        self._function = function

    async def run(self, event: Message) -> None:
        function, self._function = self._function, None
        if function is None:
            return
        seconds = self._connection.limits.disconnect_timeout
        with trio.CancelScope(shield=True, deadline=trio.current_time() + seconds) as scope:
            try:
                await function(event)
            except (ConnectionClosed, StopConsumer):
                logger.debug("the end of %s sent to a closed connection", _asgi.describe(self._connection.scope))
        if scope.cancelled_caught:
            logger.warning(
                "the disconnect handler of %s was cancelled: it took longer than %g seconds (DISCONNECT_TIMEOUT)",
                _asgi.describe(self._connection.scope),
                seconds,
            )


def _explain_cancellation(connection: Connection) -> None:
    """Say in the log why the application was cut short, where that is not what it asked for."""
    place = _asgi.describe(connection.scope)
    if connection.protocol.state is State.CONNECTING and not connection.disconnected.is_set():
        logger.warning(
            "%s was neither accepted nor denied within %g seconds (ACCEPT_TIMEOUT); denied. At that time: %s",
            place,
            connection.limits.accept_timeout,
            f"in the handler of {connection.activity!r}" if connection.activity else "no handler was running",
        )
    elif connection.activity and not connection._cancel_on_disconnect:
        logger.warning(
            "the handler of %r on %s was cancelled: it went on for more than %g seconds after the connection had ended",
            connection.activity,
            place,
            connection.limits.disconnect_timeout,
        )


def _abnormal(raised: BaseException, connection: Connection) -> BaseException | None:
    """What remains of an exception when normal ends are taken out: None, a bare exception, or a group of several."""

    def normal(leaf: BaseException) -> bool:
        return isinstance(leaf, StopConsumer) or (isinstance(leaf, ConnectionClosed) and connection.closed is not None)

    leaves = [leaf for leaf in _leaves(raised) if not normal(leaf)]
    real = [leaf for leaf in leaves if not isinstance(leaf, trio.Cancelled)]
    if len(real) > 1:
        return BaseExceptionGroup(f"several tasks of {_asgi.describe(connection.scope)} failed", real)
    return next(iter(real or leaves), None)


def _leaves(raised: BaseException) -> Iterator[BaseException]:
    if isinstance(raised, BaseExceptionGroup):
        for inner in raised.exceptions:
            yield from _leaves(inner)
    else:
        yield raised
