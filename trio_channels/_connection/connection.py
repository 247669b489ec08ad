"""The client's side of one connection: events read ahead, messages checked on their way out.

The rules (what is built on them, and what happens at the end, is in :mod:`trio_channels._connection.supervisor`):

1. The pump always drains ``receive``. A server that is not drained stops answering pings and may leak the connection
   (hypercorn blocks its reader after 10 unread events). A worker is no such server: its messages are read one by one.
2. ``send`` checks the message against the legal-message table, lets other tasks run at the latest every 16th time, and
   raises :class:`ConnectionClosed` once the client has gone. (hypercorn's own ``send`` is a silent no-op after a
   disconnect, without a checkpoint: a loop around it freezes the process.)
3. When the client goes, the application may finish what it is at, for ``disconnect_timeout`` seconds, or is cancelled
   at once with ``cancel_on_disconnect``. Events that came before are handled first.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from typing import Any

import trio

from .._asgi import protocol
from .._asgi.close_codes import ABNORMAL, INTERNAL_ERROR, NORMAL
from .._asgi.protocol import Message, Receive, Scope, Send, State
from .._concurrency import YIELD_EVERY
from .._concurrency.queues import EventQueue
from .._concurrency.wakeup import Wakeup
from .._limits import Limits
from .._threads.thread import lease_of_task
from ..exceptions import ConnectionClosed

#: What servers raise when they write to a client that has gone.
_BROKEN = (OSError, trio.BrokenResourceError, trio.ClosedResourceError)


class Connection:
    """The client's side of one connection: events read ahead, messages checked on their way out.

    Args:
        scope, receive, send: the ASGI triple.
        limits: see :class:`Limits`.
        cancel_on_disconnect: cancel the application at once when the client goes, unless it is waiting for an event,
            and so is about to learn it.
        finish_reading: nor while there are events that it has not taken; for ``disconnect_timeout`` at most.

    Attributes:
        wakeup: rung whenever there may be something new to look at.
        events: the client's, read and not yet taken; a worker's next is read when the last has been dealt with.
        closed: why nothing can be sent any more, or None.
        parting: what the client is to be told at the end, where this side has decided to cut the connection.
        on_closed: called when that becomes known.
        receiving: whether the application is about to take an event, although not waiting for the wakeup now.
        application_scope: cancelled to end the application early; known from :meth:`open` on.
        activity: what the application is doing now, for log lines; the dispatcher's to set.
    """

    application_scope: trio.CancelScope

    __slots__ = (
        "_accepted",
        "_close_sent",
        "_finish_reading",
        "_nursery",
        "_receive",
        "_send",
        "_send_is_quiet",
        "_sends",
        "_unread",
        "activity",
        "application_scope",
        "cancel_on_disconnect",
        "closed",
        "disconnected",
        "events",
        "limits",
        "on_closed",
        "parting",
        "protocol",
        "receiving",
        "scope",
        "wakeup",
    )

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
        self.protocol = protocol.Protocol(scope)
        self.wakeup = Wakeup()
        self.events = EventQueue(self.limits.read_ahead, self.wakeup)
        self.closed: ConnectionClosed | None = None
        self.parting: ConnectionClosed | None = None
        self.on_closed: Callable[[], None] | None = None
        self.receiving = False
        self.activity: str | None = None
        self.disconnected = trio.Event()
        self._nursery: trio.Nursery | None = None
        self._receive = receive
        self._send = send
        self.cancel_on_disconnect = cancel_on_disconnect
        self._finish_reading = finish_reading
        self._sends = 0
        # Up to this version of the specification a server's send says nothing when the client has gone; see send().
        self._send_is_quiet = protocol.spec_version(scope) < (2, 4)
        self._close_sent = False
        self._accepted = False
        # Whether the server may still have events that somebody must read; see rule 1.
        self._unread = self.protocol.kind == "websocket"

    def __repr__(self) -> str:
        return (
            f"<Connection {protocol.describe(self.scope)}: {self.protocol.state.value}, "
            f"{len(self.events)} events waiting"
            f"{', ' + str(self.closed) if self.closed else ''}>"
        )

    def open(self, nursery: trio.Nursery, scope: trio.CancelScope | None = None) -> None:
        """Begin the application's life, in its nursery: from now on it may be cut. A WebSocket is to be answered.

        Args:
            nursery: the application's.
            scope: around the nursery, for the limits; None: they are put on the nursery's own.
        """
        self._nursery = nursery
        self.application_scope = scope or nursery.cancel_scope
        if self.protocol.state is State.CONNECTING:
            self.application_scope.deadline = trio.current_time() + self.limits.accept_timeout

    def end(self) -> None:
        """End it: no background task can be started any more."""
        self._nursery = None

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

    @property
    def ending(self) -> bool:
        """Whether ``ConnectionClosed`` is what the application is to expect."""
        return self.over or self.parting is not None

    def start_soon(self, function: Callable[..., Awaitable[object]], *args: Any, name: object = None) -> None:
        """Start a background task that ends with the connection.

        Its exception ends the connection as a handler's would. ``ConnectionClosed`` ends only the task.
        """
        self.nursery.start_soon(self._background, function, args, name=name or function)

    async def _background(self, function: Callable[..., Awaitable[object]], args: tuple[Any, ...]) -> None:
        lease_of_task.set(None)  # it may outlive the worker call that started it
        try:
            await function(*args)
        except ConnectionClosed:
            if not self.ending:
                await trio.lowlevel.checkpoint_if_cancelled()
                raise
        except Exception as error:
            error.add_note(f"in the background task {getattr(function, '__qualname__', function)}")
            raise

    def send(self, message: Message) -> Awaitable[None]:
        """Send an ASGI message.

        Args:
            message: what the ASGI specification allows in this state.

        Raises:
            ConnectionClosed: the client has gone, or this side has closed.
            IllegalMessage: the message is malformed or not allowed now.

        Cancellation: seen before the message goes to the server, or by the server's send; later it may or may not
        arrive.
        """
        self._sends += 1
        if (
            self._send_is_quiet
            and self.closed is None
            and self.protocol.state is State.OPEN
            and self._sends % YIELD_EVERY
            and protocol.is_data(message)
        ):
            # By far the most frequent case, without a coroutine of our own: there is one for each member of a group
            # that is being sent to, and with a thousand of them that was a tenth of the whole.
            return self._send(message)
        return self._send_carefully(message)

    def send_checked(self, message: Message) -> Awaitable[None]:
        """As :meth:`send`, of a message that :meth:`check` has been called for, by another thread and a while ago."""
        self._sends += 1
        if (
            self._send_is_quiet
            and self.closed is None
            and not self._close_sent
            and self._sends % YIELD_EVERY
            and message["type"] == "websocket.send"
        ):
            return self._send(message)
        return self._send_carefully(message, checked=True)

    async def _send_carefully(self, message: Message, *, checked: bool = False) -> None:
        """As :meth:`send`, and always a cancellation point of its own.

        Args:
            message: as of :meth:`send`.
            checked: :meth:`check` has been called for it.
        """
        if self.closed is not None or self._sends % YIELD_EVERY == 0:
            await trio.lowlevel.checkpoint()
        else:
            await trio.lowlevel.checkpoint_if_cancelled()
        if not checked:
            self.check(message)
        elif self.closed is not None or self._close_sent:
            # It was checked before the client left, or before another task closed.
            raise self._why_closed()
        if message["type"] == "websocket.close":
            self._close_sent = True
        try:
            await self._send(message)
        except _BROKEN as error:
            # A server that says so need not deliver a disconnect as well.
            self._closed_by_us(ABNORMAL, "the server could not write to the client")
            raise ConnectionClosed(ABNORMAL, str(error)) from error
        if message["type"] != "websocket.send":
            self._sent(message)

    def check(self, message: Message) -> None:
        """Check a message and advance the state; callable from any thread. Raises as :meth:`send`."""
        if (self.closed is not None or self.protocol.state is State.CLOSED) and self.over:
            raise self._why_closed()
        self.protocol.sending(message)

    def _why_closed(self) -> ConnectionClosed:
        if self.closed is None:
            return ConnectionClosed(NORMAL, "closed by this side")
        return ConnectionClosed(self.closed.code, self.closed.reason)

    def _sent(self, message: Message) -> None:
        """Draw the consequences of a message that the server has taken."""
        kind, last = message["type"], not message.get("more_body")
        if kind == "websocket.accept":
            self._accepted = True
            if not self.disconnected.is_set() and self.parting is None:
                self.application_scope.deadline = math.inf
        elif kind == "websocket.close":
            self._closed_by_us(message.get("code", NORMAL), message.get("reason") or "")
            if not self._accepted:
                self._denied()
        elif kind == "websocket.http.response.body" and last:
            self._closed_by_us(NORMAL, "denied")
            self._denied()
        elif kind == "http.response.body" and last:
            self.wakeup.set()

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

    def cut(self, code: int, reason: str, *, after: float = 0.0) -> None:
        """As :meth:`expire`, and have the client told why."""
        self.parting = ConnectionClosed(code, reason)
        self.expire(after)

    @property
    def cut_short(self) -> bool:
        """Whether the application's time has run out. Its nursery cancels itself for other reasons, too."""
        return trio.current_time() >= self.application_scope.deadline

    # -- the state ------------------------------------------------------------------------------------------------

    def _closed_by_us(self, code: int, reason: str) -> None:
        self._set_closed(ConnectionClosed(code, reason))
        if not self.disconnected.is_set():
            self.application_scope.deadline = trio.current_time() + self.limits.close_timeout
        self.wakeup.set()

    def _denied(self) -> None:
        """Make up the disconnect that hypercorn delivers only when the application has returned."""
        if not self.disconnected.is_set():
            self.disconnected.set()
            why = self._why_closed()
            self.events.add({"type": "websocket.disconnect", "code": why.code, "reason": why.reason})

    def _set_closed(self, why: ConnectionClosed) -> ConnectionClosed:
        """Note why the connection is closed, unless that is known; returns what is known then."""
        if self.closed is None:
            if why.code == ABNORMAL and self.parting is not None and self.cut_short:
                why = self.parting  # it was cut in the middle of a write, which nothing can follow, not even a close
            self.closed = why
            if self.on_closed is not None:
                self.on_closed()
        return self.closed

    def _client_gone(self, event: Message) -> Message:
        """Draw the consequences; returns the event with what this side closed with, if it did.

        Servers confirm that with codes of their own: hypercorn with 1000 whatever was sent.
        """
        told = ConnectionClosed(event.get("code"), event.get("reason") or "")
        closed = self._set_closed(told)
        if closed is not told:
            event = {**event, "code": closed.code, "reason": closed.reason}
        self.disconnected.set()
        will_learn = self.wakeup.waited_for or self.receiving or (self._finish_reading and self.events.unread)
        if self.cancel_on_disconnect and not self._close_sent and not will_learn:
            self.application_scope.cancel()
        else:  # who has closed by itself may have more to do
            self.expire(self.limits.disconnect_timeout)
        return event

    async def pump(self) -> None:
        """Read events from the server until the client has gone; see rule 1."""
        try:
            while not self.disconnected.is_set():
                await self.events.put(self._received(await self._receive()))
                # A worker takes a message for done when the next is asked for, so that it must not be read ahead.
                if self.protocol.kind == "channel":
                    await self.events.until_dealt_with()
        except Exception:
            # The application is cancelled for it; that is no restart.
            self.parting = ConnectionClosed(INTERNAL_ERROR)
            raise

    def _received(self, event: Message) -> Message:
        """Draw the consequences of an event; returns what the application shall be given."""
        self.protocol.received(event)
        if self.protocol.kind == "http":
            self._unread = event.get("more_body", False)
        return self._client_gone(event) if self.protocol.disconnected else event

    async def drain(self) -> None:
        """After the end: have the pump read on, and forget, until the server confirms; at most ``close_timeout``."""
        self.events.close()
        # Of a handshake that nobody has answered, the server says nothing more before the application has returned.
        unanswered = self.protocol.state in (State.CONNECTING, State.DENYING)
        if self._unread and not unanswered and not self.disconnected.is_set():
            with trio.move_on_after(self.limits.close_timeout):
                await self.disconnected.wait()
