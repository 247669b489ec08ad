"""The figures of connections that nothing else counts: by protocol and route, from the first to the last.

Nothing is recorded until a :class:`~trio_channels.metrics.MetricsApplication` has been made: :data:`recorder` is None
then, and a connection has no :class:`Series`. The hot paths are cheap with one, too: a message is an increment, and a
handler's time two readings of a clock.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol

import trio

from .._asgi.protocol import Message, Scope
from .._concurrency.queues import EventQueue
from .._concurrency.wakeup import Wakeup
from ..exceptions import ConnectionClosed

#: Upper bounds of a histogram, in seconds.
BUCKETS = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0)
#: Most pairs of protocol and route, and most routes of Django's: code may make routes in a loop.
MOST_SERIES = 500
#: Stands for everything beyond a limit of cardinality.
OTHER = "other"
#: Seconds between two measurements of the event loop's lag: a blocked loop is seen within that time.
LAG_INTERVAL = 0.25

#: Close codes that the RFC 6455 registry has for endpoints; a client can send 4,000 others.
_REGISTERED = range(1000, 1016)


class Histogram:
    """Counts of durations, by :data:`BUCKETS`, and their sum."""

    __slots__ = ("counts", "seconds")

    def __init__(self) -> None:
        self.counts = [0] * (len(BUCKETS) + 1)
        self.seconds = 0.0

    def observe(self, seconds: float) -> None:
        """Count a duration."""
        self.counts[bisect_left(BUCKETS, seconds)] += 1
        self.seconds += seconds

    def values(self) -> list[float]:
        """The counts, each of its bucket alone, and then the sum."""
        return [*self.counts, self.seconds]


class Recorded(Protocol):
    """A connection, as far as its figures are concerned."""

    accepted: bool
    close_sent: bool
    closed: ConnectionClosed | None
    parting: ConnectionClosed | None
    scope: Scope
    sends: int


class Series:
    """The figures of all connections of one protocol and route."""

    __slots__ = ("_open", "_sent", "closes", "failed", "handlers", "opened", "received")

    def __init__(self) -> None:
        self.opened = 0
        self.failed = 0
        self.received = 0
        self.handlers = Histogram()
        self.closes: Counter[str] = Counter()
        self._sent = 0  # by connections that have ended, and by broadcasts that no task woke for
        self._open: set[Recorded] = set()

    @property
    def open(self) -> int:
        """Connections that are open now."""
        return len(self._open)

    @property
    def sent(self) -> int:
        """Messages sent to WebSockets so far."""
        # The connections count them anyway: to add them up is free per message.
        return self._sent + sum(map(_sent, self._open))

    def begin(self, connection: Recorded) -> None:
        """Count a connection that opens."""
        self.opened += 1
        self._open.add(connection)

    def end(self, connection: Recorded, *, failed: bool) -> None:
        """Count a connection's end; `failed`: the application raised an exception."""
        self._open.discard(connection)
        self._sent += _sent(connection)
        self.failed += failed
        code = None if connection.closed is None else connection.closed.code
        if code is not None and connection.scope["type"] == "websocket":
            chosen_here = connection.close_sent or connection.parting is not None
            self.closes[str(code) if chosen_here or code in _REGISTERED else OTHER] += 1

    def queue(self, capacity: int, wakeup: Wakeup) -> EventQueue:
        """A queue for the events of a connection, which counts messages."""
        return _CountedQueue(capacity, wakeup, self)

    def counting(self, write_now: Callable[[Message, Any], bool]) -> Callable[[Message, Any], bool]:
        """The function that writes a broadcast to one client, and counts it."""

        def write(message: Message, frames: Any) -> bool:
            written = write_now(message, frames)
            self._sent += written
            return written

        return write


def _sent(connection: Recorded) -> int:
    """The messages that a WebSocket's application has sent, beside the handshake's answer and the close."""
    return connection.sends - 1 - connection.close_sent if connection.accepted else 0


class _CountedQueue(EventQueue):
    __slots__ = ("_series",)

    def __init__(self, capacity: int, wakeup: Wakeup, series: Series) -> None:
        super().__init__(capacity, wakeup)
        self._series = series

    def offer(self, event: Message) -> bool:
        """See :meth:`EventQueue.offer`."""
        taken = EventQueue.offer(self, event)
        if taken and event["type"] == "websocket.receive":
            self._series.received += 1
        return taken


class Requests:
    """The figures of Django's requests to one route."""

    __slots__ = ("statuses", "views")

    def __init__(self) -> None:
        self.views = Histogram()
        self.statuses: Counter[str] = Counter()

    def answered(self, status: int, seconds: float) -> None:
        """Count a request that has been served; the status is 0 if the client left without an answer."""
        self.statuses[str(status)] += 1
        self.views.observe(seconds)


class Recorder:
    """The figures of this process' connections.

    Attributes:
        series: (protocol, route) -> figures.
        requests: route -> figures of Django's requests.
        lag: how much later than asked the event loop wakes a task.
        layers: alias -> channel layer, or None: those of ``CHANNEL_LAYERS``.
        others: returns the encoded sum over all processes, this one included; None if there is no other one. It raises
            TooSlowError if they cannot be asked any more.
    """

    def __init__(self) -> None:
        self.series: dict[tuple[str, str], Series] = {}
        self.requests: dict[str, Requests] = {}
        self.lag = Histogram()
        self.layers: Mapping[str, Any] | None = None
        self.others: Callable[[], Awaitable[bytes]] | None = None

    def series_of(self, protocol: str, route: str) -> Series:
        """The figures of connections of one protocol and route."""
        key = protocol, route
        if key not in self.series:
            if len(self.series) >= MOST_SERIES:
                key = protocol, OTHER
            self.series.setdefault(key, Series())
        return self.series[key]

    def requests_of(self, route: str) -> Requests:
        """The figures of Django's requests to one route."""
        if route not in self.requests:
            if len(self.requests) >= MOST_SERIES:
                route = OTHER
            self.requests.setdefault(route, Requests())
        return self.requests[route]

    async def watch_loop(self) -> None:
        """Measure the event loop's lag until cancelled."""
        while True:
            due = trio.current_time() + LAG_INTERVAL
            await trio.sleep_until(due)
            self.lag.observe(trio.current_time() - due)


#: The recorder of this process, once one is wanted.
recorder: Recorder | None = None


def start() -> Recorder:
    """Record from now on; idempotent. Connections that are open already are not counted."""
    global recorder
    if recorder is None:
        recorder = Recorder()
    return recorder


def series_for(scope: Scope) -> Series | None:
    """The figures for a connection; None if nothing is recorded."""
    if recorder is None:
        return None
    return recorder.series_of(scope["type"], scope.get("url_pattern") or scope.get("channel", ""))
