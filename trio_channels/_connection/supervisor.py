"""The nurseries of one connection, and its ends.

    outer nursery
      pump               reads the client's events
      application nursery
        body             the dispatcher of a consumer, or a WebSocket endpoint
        start_soon()     the application's background tasks

The rules:

1. The ending (the consumer's ``disconnect``) runs exactly once. After the client's disconnect it runs inside the living
   nursery; after an error, a cancellation by the server (the client is told 1012) or a time-out it runs in a shielded
   scope with a deadline.
2. A failing application ends its own connection only. A WebSocket is closed with 1011. The exception, with a note that
   names the connection, goes on to the server, which logs it once. A single exception is raised bare: applications need
   not know of the nurseries here.
3. An application that ends with ``ChannelLayerUnavailable`` has not failed. Its client is told to come back, with 503
   or 1012, and one line is logged.
4. ``ConnectionClosed``, once the connection is closed, and ``StopConsumer`` are normal ends.
"""

from __future__ import annotations

import logging
import math
import sys
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from types import TracebackType

import trio

from .._asgi import protocol
from .._asgi.close_codes import INTERNAL_ERROR, NORMAL, SERVICE_RESTART
from .._asgi.protocol import Message, State
from .._concurrency.exception_groups import leaves
from .._concurrency.nothing import NOTHING
from .._threads.pool import never_refused
from .._tracing import connection_span, traced
from ..exceptions import ConnectionClosed, StopConsumer
from .connection import Connection
from .outage import answer_outage
from .registry import connections_of

logger = logging.getLogger("trio_channels.connection")


async def supervise(
    connection: Connection,
    body: Callable[[], Awaitable[Message | None]],
    ending: Callable[[Message], Awaitable[object]] | None = None,
    *,
    scope: trio.CancelScope | None = None,
) -> None:
    """Run an application's side of a connection by the module's rules.

    The body returns the client's disconnect event, or None if it ends before that. The ending gets that event, or one
    that is made for it. The limits cancel `scope`; without one, the nursery's own scope, which costs less.
    """
    final = _Ending(connection, traced(ending) if ending is not None else None)
    failure: BaseException | None = None
    others = connections_of(connection.protocol.kind)
    others[connection] = trio.current_time()
    if connection.series is not None:
        connection.series.begin(connection)
    try:
        with connection_span(connection.scope):
            async with NOTHING if connection.direct else _Reading(connection):
                failure = await answer_outage(connection, await _run_body(connection, body, final, scope))
                failure = await _clean_up(connection, final, failure)
                if failure is None:
                    await connection.drain()
                else:
                    try:
                        if not isinstance(failure, trio.Cancelled):
                            await connection.drain()
                    finally:  # a cancellation meanwhile must not hide the failure
                        raise failure
    except BaseException as raised:
        failure = _abnormal(raised, connection, known=failure)
    del others[connection]
    connection.detach()
    if connection.series is not None:
        connection.series.end(connection, failed=isinstance(failure, Exception))
    if failure is not None:
        if isinstance(failure, Exception):
            protocol.note_connection(failure, connection.scope)
        try:
            raise failure
        finally:
            del failure  # its traceback holds this frame


class _Reading(AbstractAsyncContextManager[None, bool | None]):
    """In the block, the pump reads the client's events; not needed if the server puts them into the queue."""

    __slots__ = ("_connection", "_manager", "_nursery")

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._manager = trio.open_nursery()

    async def __aenter__(self) -> None:
        self._nursery = await self._manager.__aenter__()
        self._nursery.start_soon(self._connection.pump)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        if error is None and self._nursery.child_tasks:
            # The pump has usually ended, and cancelling costs a twentieth of a connect.
            self._nursery.cancel_scope.cancel()
        return await self._manager.__aexit__(kind, error, trace)


def _name_of(body: Callable[..., object]) -> object:
    """The name of the body's task: one string for all, of which Trio would make a copy for each connection."""
    known = hasattr(body, "__qualname__")  # a functools.partial has none
    return sys.intern(f"{body.__module__}.{body.__qualname__}") if known else body


async def _run_body(
    connection: Connection,
    body: Callable[[], Awaitable[Message | None]],
    final: _Ending,
    scope: trio.CancelScope | None,
) -> BaseException | None:
    """Run the body and, if it ends by itself, the ending; return the failure, or None."""
    failure: BaseException | None = None
    try:
        with scope or NOTHING:
            async with trio.open_nursery() as nursery:
                connection.open(nursery, scope)
                # The body has a task of its own: a task is resumed through all its coroutines, so that the ones here
                # would be resumed for every message. With a thousand connections that is a third of a fan-out's time.
                nursery.start_soon(_main, connection, body, final, name=_name_of(body))
    except BaseException as raised:
        failure = _abnormal(raised, connection)
    connection.end()
    if connection.application_scope.cancelled_caught and connection.cut_short:
        _explain_cancellation(connection)
    return failure


async def _main(connection: Connection, body: Callable[[], Awaitable[Message | None]], final: _Ending) -> None:
    event = await body()
    connection.application_scope.deadline = math.inf
    if event is not None:
        await final.run(event)
    nursery = connection.nursery
    if len(nursery.child_tasks) > 1:  # background tasks, beside this one
        nursery.cancel_scope.cancel()


async def _clean_up(connection: Connection, final: _Ending, failure: BaseException | None) -> BaseException | None:
    """Close, then run the ending if it has not run; shielded, with deadlines. Return all failures, or None."""
    code, reason = _last_word(connection, failure)
    failures = [] if failure is None else [failure]
    # The server answers a failed handshake, with 500.
    answerable = (State.OPEN,) if code == INTERNAL_ERROR else (State.OPEN, State.CONNECTING)
    if connection.closed is None and connection.protocol.state in answerable:
        with trio.CancelScope(shield=True, deadline=trio.current_time() + connection.limits.close_timeout):
            try:
                await connection.close(code, reason)
            except ConnectionClosed:
                pass  # the client has just gone
            except Exception as error:
                failures.append(error)
    closed = connection.closed or ConnectionClosed(code, reason)
    try:
        await final.run(
            {"type": f"{connection.protocol.kind}.disconnect", "code": closed.code, "reason": closed.reason}
        )
    except BaseException as error:
        failures.append(error)
    return _abnormal(BaseExceptionGroup("", failures), connection, known=failure) if failures else None


def _last_word(connection: Connection, failure: BaseException | None) -> tuple[int, str]:
    """The close code and reason for a client that is still there."""
    if failure is not None and not isinstance(failure, trio.Cancelled):
        return INTERNAL_ERROR, ""
    if connection.parting is not None:
        return connection.parting.code or NORMAL, connection.parting.reason
    return NORMAL if failure is None else SERVICE_RESTART, ""


class _Ending:
    """Runs the ending once, shielded from cancellation for ``disconnect_timeout`` seconds."""

    __slots__ = ("_connection", "_function")

    def __init__(self, connection: Connection, function: Callable[[Message], Awaitable[object]] | None) -> None:
        self._connection = connection
        self._function = function

    async def run(self, event: Message) -> None:
        function, self._function = self._function, None
        if function is None:
            return
        seconds = self._connection.limits.disconnect_timeout
        before = never_refused.set(True)
        with trio.CancelScope(shield=True, deadline=trio.current_time() + seconds) as scope:
            try:
                await function(event)
            except StopConsumer:
                pass
            except ConnectionClosed:
                logger.debug("the end of %s sent to a closed connection", protocol.describe(self._connection.scope))
            finally:
                never_refused.reset(before)
        if scope.cancelled_caught:
            logger.warning(
                "the disconnect handler of %s was cancelled: it took longer than %g seconds (DISCONNECT_TIMEOUT)",
                protocol.describe(self._connection.scope),
                seconds,
            )


def _explain_cancellation(connection: Connection) -> None:
    """Log why the application was cut short, unless it asked for that."""
    place = protocol.describe(connection.scope)
    if connection.parting is not None:
        return  # logged where it was cut
    if connection.protocol.state is State.CONNECTING and not connection.gone:
        logger.warning(
            "%s was neither accepted nor denied within %g seconds (ACCEPT_TIMEOUT); denied. At that time: %s",
            place,
            connection.limits.accept_timeout,
            f"in the handler of {connection.activity!r}"
            if connection.activity
            else "no handler was running: await accept() or close() in connect()",
        )
    elif connection.activity and not connection.cancel_on_disconnect:
        logger.warning(
            "the handler of %r on %s was cancelled: it went on for more than %g seconds after the connection had ended",
            connection.activity,
            place,
            connection.limits.disconnect_timeout,
        )


def _abnormal(
    raised: BaseException, connection: Connection, *, known: BaseException | None = None
) -> BaseException | None:
    """The exception, bare or a group, without its normal ends; those in `known` were raised before the close."""
    known_leaves = [] if known is None else list(leaves(known))

    def normal(leaf: BaseException) -> bool:
        if any(leaf is one for one in known_leaves):
            return False
        return isinstance(leaf, StopConsumer) or (isinstance(leaf, ConnectionClosed) and connection.ending)

    abnormal = [leaf for leaf in leaves(raised) if not normal(leaf)]
    real = [leaf for leaf in abnormal if not isinstance(leaf, trio.Cancelled)]
    if len(real) > 1:
        return BaseExceptionGroup(f"several tasks of {protocol.describe(connection.scope)} failed", real)
    return next(iter(real or abnormal), None)
