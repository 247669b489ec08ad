"""The client's side of one connection: events read ahead, messages checked on their way out.

The rules:

1. The pump always drains ``receive``. Otherwise the server stops answering pings and may leak the connection: hypercorn
   blocks its reader after 10 unread events. A worker reads its messages one by one instead.
2. ``send`` checks the message, lets other tasks run at least every 16th time, and raises :class:`ConnectionClosed` once
   the client has gone. (hypercorn's own ``send`` does nothing then, without a checkpoint: a loop around it freezes the
   process.)
3. When the client goes, the application may go on for ``disconnect_timeout`` seconds; with ``cancel_on_disconnect`` it
   is cancelled at once. Events that came before the disconnect are handled first.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from typing import Any

import trio

from .._asgi import protocol
from .._asgi.close_codes import ABNORMAL, INTERNAL_ERROR, NORMAL
from .._asgi.foreign import NOT_TRIO
from .._asgi.protocol import Message, Receive, Scope, Send, State
from .._concurrency import YIELD_EVERY
from .._concurrency.queues import EventQueue
from .._concurrency.wakeup import Wakeup
from .._limits import Limits
from .._metrics.recording import series_for
from .._threads.thread import lease_of_task
from ..exceptions import ConfigurationError, ConnectionClosed
from .direct import Broadcast, inbox_behind, writer_behind
from .parting import Outside

#: The exceptions of servers that write to a client that has gone.
_BROKEN = (OSError, trio.BrokenResourceError, trio.ClosedResourceError)


class Connection(Outside):
    """The client's side of one connection; see the module's rules."""

    application_scope: trio.CancelScope  # cancelled to end the application early

    __slots__ = (
        *("_disconnected", "_finish_reading", "_inbox", "_nursery", "_receive", "_send", "_send_is_quiet", "_unread"),
        *("_write_now", "accepted", "activity", "application_scope", "cancel_on_disconnect", "close_sent", "closed"),
        *("events", "gone", "limits", "mailbox", "on_closed", "parting", "protocol", "receiving", "scope", "sends"),
        *("series", "wakeup"),
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
        if not trio.lowlevel.in_trio_run():
            raise ConfigurationError(NOT_TRIO)
        self.scope = scope
        self._receive = receive
        self._send = send
        self._inbox = inbox_behind(receive, scope) if scope["type"] == "websocket" else None
        self.series = series_for(scope)  # None unless metrics are wanted
        self._write_now = None if self._inbox is None else writer_behind(send, self.series)
        self.limits = limits or Limits()
        self.protocol = protocol.Protocol(scope)
        self.wakeup = Wakeup()  # set for every new event, message or change of state
        queue = EventQueue if self.series is None else self.series.queue
        self.events = queue(self.limits.read_ahead, self.wakeup)
        self.closed: ConnectionClosed | None = None  # why nothing can be sent any more
        self.parting: ConnectionClosed | None = None  # the code and reason with which this side cuts the connection
        self.on_closed: Callable[[], None] | None = None  # called when `closed` is set
        self.receiving = False  # the application is about to take an event, although it does not wait for the wakeup
        self.activity: str | None = None  # the type of the message that is being handled, for log lines
        self.mailbox: Any = None  # of the connection's channel, if it has one
        self.gone = False  # the client: its disconnect has come
        self._disconnected: trio.Event | None = None
        self._nursery: trio.Nursery | None = None
        # Not while the application waits for an event: the disconnect is next. With `finish_reading`, also not while
        # there are events that it has not taken.
        self.cancel_on_disconnect = cancel_on_disconnect
        self._finish_reading = finish_reading
        self.sends = 0
        # Before version 2.4 of the specification a server's send does not tell that the client has gone; see send().
        self._send_is_quiet = protocol.spec_version(scope) < (2, 4)
        self.close_sent = False
        self.accepted = False  # the server has answered the handshake
        # Whether the server may still have events that must be read; see rule 1.
        self._unread = self.protocol.kind == "websocket"

    def __repr__(self) -> str:
        closed = f", {self.closed}" if self.closed else ""
        state = self.protocol.state.value
        return f"<Connection {protocol.describe(self.scope)}: {state}, {len(self.events)} events waiting{closed}>"

    def open(self, nursery: trio.Nursery, scope: trio.CancelScope | None = None) -> None:
        """Start the application in its nursery. The limits cancel `scope`, by default the nursery's own."""
        self._nursery = nursery
        self.application_scope = scope or nursery.cancel_scope
        if self.protocol.state is State.CONNECTING:
            self.application_scope.deadline = trio.current_time() + self.limits.accept_timeout
        if self._inbox is not None:
            self._inbox.attach(self.events, self._disconnect)

    def end(self) -> None:
        """End the application: no background task can be started any more."""
        self._nursery = None

    @property
    def direct(self) -> bool:
        """Whether the server puts events straight into :attr:`events`, so that no pump is needed."""
        return self._inbox is not None

    def broadcast(self, envelope: Broadcast) -> bool:
        """Write a message for many clients to this one at once. False if something waits, or the server cannot."""
        return (
            self._write_now is not None
            # Nothing is being handled, and nothing has come: as `wakeup.waited_for`, without a call.
            and (waiter := self.wakeup.waiter) is not None
            and waiter.custom_sleep_data is self.wakeup
            and self.accepted
            and self.protocol.state is State.OPEN
            and self.closed is None
            and self._write_now(envelope.message, envelope.frames)
        )

    def _disconnect(self, event: Message) -> None:
        self.protocol.received(event)
        self.events.add(self._client_gone(event))

    def detach(self) -> None:
        """Let go of the server's queue, so that no reference cycle is left."""
        self.mailbox = None
        if self._inbox is not None:
            self._inbox.detach()

    @property
    def nursery(self) -> trio.Nursery:
        """The application's nursery, while the connection is run."""
        if self._nursery is None:
            raise RuntimeError("the connection has no nursery: it has not been started, or has ended")
        return self._nursery

    @property
    def over(self) -> bool:
        """Whether nothing can be sent any more, or a WebSocket's close is on its way."""
        return self.closed is not None or (self.protocol.kind == "websocket" and self.protocol.state is State.CLOSED)

    @property
    def ending(self) -> bool:
        """Whether the application must expect ``ConnectionClosed``."""
        return self.over or self.parting is not None

    @property
    def disconnected(self) -> trio.Event:
        """Set when the disconnect has come. It is made when somebody asks for it, as few do."""
        if self._disconnected is None:
            self._disconnected = trio.Event()
            if self.gone:
                self._disconnected.set()
        return self._disconnected

    def _set_gone(self) -> None:
        self.gone = True
        if self._disconnected is not None:
            self._disconnected.set()

    def start_soon(self, function: Callable[..., Awaitable[object]], *args: Any, name: object = None) -> None:
        """Start a background task that ends with the connection; its exception ends it as a handler's would."""
        self.nursery.start_soon(self._background, function, args, name=name or function)

    async def _background(self, function: Callable[..., Awaitable[object]], args: tuple[Any, ...]) -> None:
        lease_of_task.set(None)  # the task may outlive the call on a thread that started it
        try:
            await function(*args)
        except ConnectionClosed:  # ends only the task
            if not self.ending:
                await trio.lowlevel.checkpoint_if_cancelled()
                raise
        except Exception as error:
            error.add_note(f"in the background task {getattr(function, '__qualname__', function)}")
            raise

    def send(self, message: Message) -> Awaitable[None]:
        """Send an ASGI message; if it is cancelled during the server's ``send``, the message may arrive."""
        self.sends += 1
        if (
            self._send_is_quiet
            and self.closed is None
            and self.protocol.state is State.OPEN
            and self.sends % YIELD_EVERY
            and protocol.is_data(message)
        ):
            # The most frequent case needs no coroutine of its own. In a group send to a thousand members, one for each
            # of them costs a tenth of the time.
            return self._send(message)
        return self._send_carefully(message)

    def send_checked(self, message: Message) -> Awaitable[None]:
        """Send a message that another thread has passed to :meth:`check` before; otherwise as :meth:`send`."""
        self.sends += 1
        if (
            self._send_is_quiet
            and self.closed is None
            and not self.close_sent
            and self.sends % YIELD_EVERY
            and message["type"] == "websocket.send"
        ):
            return self._send(message)
        return self._send_carefully(message, checked=True)

    async def _send_carefully(self, message: Message, *, checked: bool = False) -> None:
        """As :meth:`send`, always with a cancellation point; `checked`: :meth:`check` has been called."""
        if self.closed is not None or self.sends % YIELD_EVERY == 0:
            await trio.lowlevel.checkpoint()
        else:
            await trio.lowlevel.checkpoint_if_cancelled()
        if not checked:
            self.check(message)
        elif self.closed is not None or self.close_sent:
            # It was checked before the client left, or before another task closed.
            raise self._why_closed()
        if message["type"] == "websocket.close":
            self.close_sent = True
        try:
            await self._send(message)
        except _BROKEN as error:
            # The server need not deliver a disconnect after this.
            self._closed_by_us(ABNORMAL, "the server could not write to the client")
            raise ConnectionClosed(ABNORMAL, str(error)) from error
        if message["type"] != "websocket.send":
            self._sent(message)

    def check(self, message: Message) -> None:
        """Check a message and advance the state; on any thread. Raises: as :meth:`send`."""
        if (self.closed is not None or self.protocol.state is State.CLOSED) and self.over:
            raise self._why_closed()
        self.protocol.sending(message)

    def _why_closed(self) -> ConnectionClosed:
        why = self.closed or self.parting or ConnectionClosed(NORMAL, "closed by this side")
        return ConnectionClosed(why.code, why.reason)

    def _sent(self, message: Message) -> None:
        """Update the state after the server has taken a message."""
        kind, last = message["type"], not message.get("more_body")
        if kind == "websocket.accept":
            self.accepted = True
            if not self.gone and self.parting is None:
                self.application_scope.deadline = math.inf
        elif kind == "websocket.close":
            self._closed_by_us(message.get("code", NORMAL), message.get("reason") or "")
            if not self.accepted:
                self._denied()
        elif kind == "websocket.http.response.body" and last:
            self._closed_by_us(NORMAL, "denied")
            self._denied()
        elif kind == "http.response.body" and last:
            self.wakeup.set()

    async def close(self, code: int = NORMAL, reason: str = "") -> None:
        """Close a WebSocket, or deny one that was not accepted; does nothing once it is closed."""
        if self.closed is None and self.protocol.state in (State.OPEN, State.CONNECTING):
            message = {"type": "websocket.close", "code": code}
            if reason:
                message["reason"] = reason
            await self.send(message)

    def expire(self, seconds: float) -> None:
        """Cancel the application if it has not ended within `seconds`."""
        self.application_scope.deadline = min(self.application_scope.deadline, trio.current_time() + seconds)

    def cut(self, code: int, reason: str, *, after: float = 0.0) -> None:
        """Cancel the application if it has not ended within `after` seconds, and close with this code and reason."""
        self.parting = ConnectionClosed(code, reason)
        self.expire(after)

    @property
    def cut_short(self) -> bool:
        """Whether the application's deadline has passed. Its nursery may be cancelled for other reasons, too."""
        return trio.current_time() >= self.application_scope.deadline

    def _closed_by_us(self, code: int, reason: str) -> None:
        self._set_closed(ConnectionClosed(code, reason))
        if not self.gone:
            self.application_scope.deadline = trio.current_time() + self.limits.close_timeout
        self.wakeup.set()

    def _denied(self) -> None:
        """Add the disconnect event, which hypercorn delivers only after the application has returned."""
        if not self.gone:
            self._set_gone()
            why = self._why_closed()
            self.events.add({"type": "websocket.disconnect", "code": why.code, "reason": why.reason})

    def _set_closed(self, why: ConnectionClosed) -> ConnectionClosed:
        """Set the reason of the close, unless there is one; returns the reason that counts."""
        if self.closed is None:
            if why.code == ABNORMAL and self.parting is not None and self.cut_short:
                why = self.parting  # it was cut in the middle of a write; no close can follow that
            self.closed = why
            if self.on_closed is not None:
                self.on_closed()
        return self.closed

    def _client_gone(self, event: Message) -> Message:
        """Note the disconnect; returns the event, with this side's close code and reason if this side closed."""
        # Servers confirm a close with codes of their own: hypercorn always with 1000.
        told = ConnectionClosed(event.get("code"), event.get("reason") or "")
        closed = self._set_closed(told)
        if closed is not told:
            event = {**event, "code": closed.code, "reason": closed.reason}
        self._set_gone()
        will_learn = self.wakeup.waited_for or self.receiving or (self._finish_reading and self.events.unread)
        if self.cancel_on_disconnect and not self.close_sent and not will_learn:
            self.application_scope.cancel()
        else:  # an application that has closed may have more to do
            self.expire(self.limits.disconnect_timeout)
        return event

    async def pump(self) -> None:
        """Read events from the server until the client has gone; see rule 1. Not for a :attr:`direct` connection."""
        try:
            while not self.gone:
                await self.events.put(self._received(await self._receive()))
                # A worker takes a message for done when the next is asked for. So it must not be read ahead.
                if self.protocol.kind == "channel":
                    await self.events.until_dealt_with()
        except Exception:
            # The application is cancelled because of this error, and the client must not be told of a restart.
            self.parting = ConnectionClosed(INTERNAL_ERROR)
            raise

    def _received(self, event: Message) -> Message:
        """Update the state after an event; returns the event for the application."""
        self.protocol.received(event)
        if self.protocol.kind == "http":
            self._unread = event.get("more_body", False)
        return self._client_gone(event) if self.protocol.disconnected else event

    async def drain(self) -> None:
        """After the end: have the pump drop events until the disconnect, for ``close_timeout`` at most."""
        self.events.close()
        # After an unanswered handshake the server delivers nothing before the application has returned.
        unanswered = self.protocol.state in (State.CONNECTING, State.DENYING)
        if self._unread and not unanswered and not self.gone:
            with trio.move_on_after(self.limits.close_timeout):
                await self.disconnected.wait()
