"""The seams at which spans are made. :mod:`trio_channels.tracing` fills them; without it they are empty."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager
from typing import Any, Protocol, TypeVar, cast

from ._asgi.protocol import Message, Scope
from ._concurrency.nothing import NOTHING

#: The context of a trace, as it travels in a message of a channel layer: the fields of a propagator.
Trace = dict[str, str]


class Tracer(Protocol):
    """Makes spans."""

    def connection(self, scope: Scope) -> AbstractContextManager[object]:
        """A span for the length of a connection."""

    def request(self, scope: Scope) -> AbstractContextManager[Callable[[str, int], None]]:
        """A span for the length of a request of Django's; call its value with the route and the status."""

    def handle(self, message: Message, handling: Awaitable[object]) -> Awaitable[object]:
        """Await the handling of a message in a span."""

    def trace(self) -> Trace:
        """The current context, for a message that is being sent."""


#: Starts to handle a message; the result may be None if there is nothing to await.
Handler = TypeVar("Handler", bound=Callable[[Message], Any])

#: The tracer; None unless tracing is enabled.
tracer: Tracer | None = None


class TracedMessage(dict[str, Any]):
    """A message of a channel layer that came with the context of its sender; to its handler a dict like any other."""

    __slots__ = ("trace",)

    trace: Trace

    @classmethod
    def of(cls, message: Message, trace: Trace) -> Message:
        """The same message, with a context."""
        traced = cls(message)
        traced.trace = trace
        return traced

    def copy(self) -> dict[str, Any]:
        """A shallow copy, with the context."""
        return TracedMessage.of(self, self.trace)


def connection_span(scope: Scope) -> AbstractContextManager[object]:
    """A span for the length of a connection, if tracing is enabled."""
    return NOTHING if tracer is None else tracer.connection(scope)


def traced(handler: Handler) -> Handler:
    """The handler of a connection's messages, which makes a span for each one if tracing is enabled."""
    current = tracer
    if current is None:
        return handler

    def start(message: Message) -> Awaitable[object] | None:
        handling: Awaitable[object] | None = handler(message)
        return None if handling is None else current.handle(message, handling)

    return cast(Handler, start)


def carrying(message: Message) -> Message:
    """A message that is being sent within this process, with the sender's context if tracing is enabled."""
    return message if tracer is None else TracedMessage.of(message, tracer.trace())


def current_trace() -> Trace | None:
    """The context for a message that is being sent to other processes; None if tracing is not enabled."""
    return None if tracer is None else tracer.trace()
