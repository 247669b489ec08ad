"""Spans for OpenTelemetry: of connections, requests, handlers, sends to channel layers, and calls on threads.

It needs ``opentelemetry-api``: ``pip install 'trio-channels[otel]'``. Your application configures the SDK. Without
:func:`enable` no span is made.
"""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from . import __version__, _tracing
from ._asgi.protocol import Message, Scope
from ._threads.lease import Lease, current_lease
from ._threads.pool import WorkerPool
from ._tracing import Trace, TracedMessage
from .exceptions import ConfigurationError, ConnectionClosed, StopConsumer
from .layers.base import ChannelLayer
from .layers.memory import InMemoryChannelLayer

if TYPE_CHECKING:
    from opentelemetry import trace
    from opentelemetry.context import Context

__all__ = ["context_of", "disable", "enable"]

#: Ends of a handler that are no errors.
_NORMAL = (StopConsumer, ConnectionClosed)

#: The methods that were replaced: class, name, original.
_replaced: list[tuple[type, str, Any]] = []


def enable(tracer_provider: trace.TracerProvider | None = None) -> None:
    """Make spans from now on, in this process; connections that are open already make none. Idempotent.

    Args:
        tracer_provider: of the OpenTelemetry SDK; by default the global one.

    Raises:
        ConfigurationError: ``opentelemetry-api`` is not installed.

    A message of a channel layer carries the context of its sender, so that the spans of its handlers hang below the
    span of the send, also in other processes. Processes with a version of trio-channels before this one cannot read
    such messages: update all of them before you enable tracing.
    """
    try:
        from opentelemetry import trace
    except ImportError:
        raise ConfigurationError(
            "tracing needs the package opentelemetry-api; install it: pip install 'trio-channels[otel]'"
        ) from None
    disable()
    tracer = trace.get_tracer("trio_channels", __version__, tracer_provider)
    _tracing.tracer = _Tracer(tracer)
    for layer in _layers():
        for name in ("send", "group_send"):
            _replace(layer, name, functools.partial(_traced_send, tracer))
    for threads in (WorkerPool, Lease):
        _replace(threads, "run_sync", functools.partial(_traced_call, tracer))


def disable() -> None:
    """Make no more spans. Those of open connections end with them."""
    _tracing.tracer = None
    while _replaced:
        owner, name, original = _replaced.pop()
        setattr(owner, name, original)


def context_of(message: Message) -> Context:
    """The OpenTelemetry context with which a message of a channel layer came, or the current one.

    For code that reads messages without a handler, from ``subscribe()`` or ``receive()``.
    """
    from opentelemetry import context, propagate

    if isinstance(message, TracedMessage):
        return propagate.extract(message.trace)
    return context.get_current()


def _layers() -> Iterator[type[ChannelLayer]]:
    yield InMemoryChannelLayer
    try:
        from .layers.redis import RedisStreamsChannelLayer
    except ImportError:  # hiredis is not installed: nobody has such a layer
        return
    yield RedisStreamsChannelLayer


def _replace(owner: type, name: str, replacement: Callable[[Any], Any]) -> None:
    # A replaced method costs nothing while tracing is off; a check in each would.
    original = getattr(owner, name)
    _replaced.append((owner, name, original))
    setattr(owner, name, functools.wraps(original)(replacement(original)))


class _Tracer:
    """See :class:`trio_channels._tracing.Tracer`."""

    def __init__(self, tracer: trace.Tracer) -> None:
        self._tracer = tracer

    @contextmanager
    def connection(self, scope: Scope) -> Iterator[None]:
        place = scope.get("url_pattern") or scope.get("channel", "")
        with self._served(scope, f"{scope['type']} {place}".strip()) as span:
            span.set_attribute("trio_channels.route", place)
            yield

    @contextmanager
    def request(self, scope: Scope) -> Iterator[Callable[[str, int], None]]:
        with self._served(scope, scope["method"]) as span:
            span.set_attribute("http.request.method", scope["method"])
            span.set_attribute("url.path", scope["path"])

            def answered(route: str, status: int) -> None:
                if route:
                    span.update_name(f"{scope['method']} {route}")
                    span.set_attribute("http.route", route)
                span.set_attribute("http.response.status_code", status)
                if status >= 500:
                    _mark_failed(span)

            yield answered

    @contextmanager
    def _served(self, scope: Scope, name: str) -> Iterator[trace.Span]:
        """A span below the one that is current, or else below the client's."""
        from opentelemetry import propagate, trace

        inside = trace.get_current_span().get_span_context().is_valid
        headers = {key.decode("latin-1"): value.decode("latin-1") for key, value in scope.get("headers", ())}
        context = None if inside else propagate.extract(headers)
        kind = trace.SpanKind.INTERNAL if inside else trace.SpanKind.SERVER
        with self._tracer.start_as_current_span(name, context, kind, record_exception=False) as span:
            try:
                yield span
            except Exception as error:
                span.record_exception(error)
                raise

    async def handle(self, message: Message, handling: Awaitable[object]) -> object:
        from opentelemetry import trace

        links = []
        if isinstance(message, TracedMessage):
            links.append(trace.Link(trace.get_current_span().get_span_context()))
        with self._tracer.start_as_current_span(
            str(message.get("type")),
            context_of(message),
            trace.SpanKind.CONSUMER if links else trace.SpanKind.INTERNAL,
            links=links,
            record_exception=False,
            set_status_on_exception=False,
        ) as span:
            try:
                return await handling
            except _NORMAL:
                raise
            except Exception as error:
                span.record_exception(error)
                _mark_failed(span)
                raise

    def trace(self) -> Trace:
        from opentelemetry import propagate

        carrier: Trace = {}
        propagate.inject(carrier)
        return carrier


def _mark_failed(span: trace.Span) -> None:
    from opentelemetry.trace import Status, StatusCode

    span.set_status(Status(StatusCode.ERROR))


def _traced_send(tracer: trace.Tracer, send: Callable[..., Awaitable[None]]) -> Callable[..., Awaitable[None]]:
    from opentelemetry.trace import SpanKind

    async def traced(layer: ChannelLayer, target: str, message: Any, **options: Any) -> None:
        kind = message.get("type") if isinstance(message, dict) else None
        with tracer.start_as_current_span(f"{send.__name__} {kind}", kind=SpanKind.PRODUCER) as span:
            span.set_attribute("messaging.system", type(layer).__name__)
            span.set_attribute("messaging.destination.name", target)
            await send(layer, target, message, **options)

    return traced


def _traced_call(tracer: trace.Tracer, run_sync: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    async def traced(threads: WorkerPool | Lease, call: Callable[..., Any], *args: Any) -> Any:
        if isinstance(threads, WorkerPool) and current_lease() is not None:
            return await run_sync(threads, call, *args)  # by the lease, which makes the span
        with tracer.start_as_current_span(f"thread {_name_of(call, args)}"):
            return await run_sync(threads, call, *args)

    return traced


def _name_of(call: Any, args: tuple[Any, ...]) -> str:
    """The name of the function that a call on a thread is about; the first functions only prepare it."""
    candidates = [call, *args]
    while candidates:
        one = candidates.pop(0)
        if isinstance(one, functools.partial):
            candidates[:0] = one.args
            one = one.func
        name = getattr(one, "__qualname__", "")
        if name and name not in _PREPARATIONS:
            return str(name)
    return "call"


#: Functions that call the one that is meant.
_PREPARATIONS = {"_with_fresh_connections", "Context.run", "SyncToAsync.thread_handler"}
