"""The nursery that everything of one connection lives in, and what happens on every way out.

    outer nursery
      pump               reads the client's events
      application nursery
        body             the dispatcher of a consumer, or a WebSocket endpoint
        start_soon()     the application's background tasks

The rules:

1. The ending (the consumer's ``disconnect``) runs exactly once on every way out: after the client's disconnect inside
   the living nursery; after an error, a cancellation by the server or a time-out in a shielded scope with a deadline.
2. A failing application ends its own connection only: 1011 to a WebSocket client, and the exception goes on to the
   server, which logs it once; a note in it says which connection it was. A single exception is raised bare, not in an
   exception group: the nurseries here are nobody's business.
3. An application that ends with ``ChannelLayerUnavailable`` is not failing: a client that is still there is told to
   come back, with 503 or 1012, and one line is logged.
4. ``ConnectionClosed``, once the connection is closed, and ``StopConsumer`` are normal ends.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Awaitable, Callable
from contextlib import nullcontext

import trio

from .._asgi import protocol
from .._asgi.close_codes import INTERNAL_ERROR, NORMAL, SERVICE_RESTART
from .._asgi.protocol import Message, State
from .._concurrency.exception_groups import leaves
from .._threads.pool import never_refused
from ..exceptions import ConnectionClosed, StopConsumer
from .census import counted
from .connection import Connection
from .outage import answer_outage

logger = logging.getLogger("trio_channels.connection")


async def supervise(
    connection: Connection,
    body: Callable[[], Awaitable[Message | None]],
    ending: Callable[[Message], Awaitable[object]] | None = None,
    *,
    scope: trio.CancelScope | None = None,
) -> None:
    """Run an application's side of a connection by the module's rules.

    Args:
        connection: not yet run.
        body: the application; ends when it has nothing more to do with the client, and returns the client's disconnect
            event if it came to it.
        ending: called once with the disconnect event, the server's or, where there was none, one made here.
        scope: what the limits are put on, for a body that shows its nursery, whose own scope is then not to be touched.
            One less costs less.

    Raises:
        Exception: what the body, a background task or the ending raised, bare if it is one.

    Cancellation: the body is cancelled; the ending runs in a shielded scope of at most ``disconnect_timeout``; a
    WebSocket client is told 1012.
    """
    final = _Ending(connection, ending)
    failure: BaseException | None = None
    try:
        with counted(connection.protocol.kind):
            async with trio.open_nursery() as outer:
                outer.start_soon(connection.pump)
                failure = await answer_outage(connection, await _run_body(connection, body, final, scope))
                failure = await _clean_up(connection, final, failure)
                try:
                    if not isinstance(failure, trio.Cancelled):
                        await connection.drain()
                finally:  # a cancellation meanwhile must not hide what went wrong
                    if failure is not None:
                        raise failure
                if outer.child_tasks:  # the pump has usually ended, and cancelling costs a twentieth of a connect
                    outer.cancel_scope.cancel()
    except BaseException as raised:
        failure = _abnormal(raised, connection, known=failure)
    if failure is not None:
        if isinstance(failure, Exception):
            protocol.note_connection(failure, connection.scope)
        try:
            raise failure
        finally:
            del failure  # its traceback holds this frame


async def _run_body(
    connection: Connection,
    body: Callable[[], Awaitable[Message | None]],
    final: _Ending,
    scope: trio.CancelScope | None,
) -> BaseException | None:
    """Run the body and, where it ends by itself, the ending; return what went wrong."""
    failure: BaseException | None = None
    try:
        with scope or nullcontext():
            async with trio.open_nursery() as nursery:
                connection.open(nursery, scope)
                # A task of its own: a task is woken through all its coroutines, and those here would be on the way of
                # every message. With a thousand connections that is a third of the time of a fan-out.
                nursery.start_soon(_main, connection, body, final, name=body)
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
    """Tell the client, then run the ending if it has not run; shielded, bounded. Return all that went wrong."""
    code, reason = _last_word(connection, failure)
    failures = [] if failure is None else [failure]
    # A handshake that failed is the server's to answer, with 500.
    answerable = (State.OPEN,) if code == INTERNAL_ERROR else (State.OPEN, State.CONNECTING)
    if connection.closed is None and connection.protocol.state in answerable:
        with trio.CancelScope(shield=True, deadline=trio.current_time() + connection.limits.close_timeout):
            try:
                await connection.close(code, reason)
            except ConnectionClosed:
                pass  # it has just gone by itself
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
    """The application's last word, said once, shielded from cancellation for ``disconnect_timeout`` seconds."""

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
    """Say in the log why the application was cut short, where that is not what it asked for."""
    place = protocol.describe(connection.scope)
    if connection.parting is not None:
        return  # whoever cut it has said so
    if connection.protocol.state is State.CONNECTING and not connection.disconnected.is_set():
        logger.warning(
            "%s was neither accepted nor denied within %g seconds (ACCEPT_TIMEOUT); denied. At that time: %s",
            place,
            connection.limits.accept_timeout,
            f"in the handler of {connection.activity!r}" if connection.activity else "no handler was running",
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
    """What remains of an exception when normal ends are taken out: None, a bare exception, or a group of several.

    `known` has been found abnormal before the connection was closed, which it stays.
    """
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
