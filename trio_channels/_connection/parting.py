"""Closing a connection from outside of its application, which finds its client gone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import trio

from .._asgi.close_codes import NORMAL, SERVICE_RESTART, TRY_AGAIN_LATER
from .._asgi.protocol import State
from .._asgi.responses import respond_plainly
from ..exceptions import ConnectionClosed, IllegalMessage
from .registry import belongs_to

if TYPE_CHECKING:
    from .connection import Connection


#: The close reasons for a client whose mailbox was full, and for one whose channel layer has failed.
TOO_SLOW, UNAVAILABLE = "too slow for its groups", "service unavailable"


class Outside:
    """The side of a connection that is not its application's; the base of Connection."""

    __slots__ = ()

    @property
    def user(self) -> Any:
        """The user in the scope."""
        return self.scope.get("user")  # type: ignore[attr-defined]  # an attribute of Connection

    @property
    def session(self) -> Any:
        """The session in the scope."""
        return self.scope.get("session")  # type: ignore[attr-defined]

    def has_task(self, task: trio.lowlevel.Task | None) -> bool:
        """Whether a task is one of the application's."""
        return belongs_to(task, cast("Connection", self)._nursery)

    # A handler may be stuck in a send to a client that does not read. It must not keep the connection.

    def cut_as_too_slow(self) -> None:
        """Have the connection end because its mailbox was full."""
        connection = cast("Connection", self)
        connection.cut(TRY_AGAIN_LATER, TOO_SLOW, after=connection.limits.disconnect_timeout)

    def cut_without_layer(self) -> None:
        """Have the connection end because its channel layer has failed."""
        connection = cast("Connection", self)
        connection.cut(SERVICE_RESTART, UNAVAILABLE, after=connection.limits.disconnect_timeout)

    def close_from_outside(self, code: int, reason: str) -> bool:
        """Close soon, and cancel an application that does not end in time. Returns whether it was open."""
        connection = cast("Connection", self)
        nursery = connection._nursery
        if nursery is None or connection.ending or connection.gone:
            return False
        connection.parting = ConnectionClosed(code, reason)
        connection.expire(connection.limits.disconnect_timeout)
        nursery.start_soon(_close if connection.protocol.kind == "websocket" else _break_off, connection)
        return True


async def _close(connection: Connection) -> None:
    """Close, and add the disconnect before the client's own; the events that wait are dropped."""
    parting = connection.parting or ConnectionClosed(NORMAL)
    try:
        # Shielded: the application may end at once, since it cannot send any more.
        with trio.CancelScope(shield=True, deadline=trio.current_time() + connection.limits.close_timeout):
            await connection.close(parting.code or NORMAL, parting.reason)
    except ConnectionClosed:
        return  # the client has gone meanwhile
    if connection.gone:
        return
    will_learn = connection.wakeup.waited_for or connection.receiving
    connection.events.close()
    connection.events.add({"type": "websocket.disconnect", "code": parting.code, "reason": parting.reason})
    if connection.cancel_on_disconnect and not will_learn:
        connection.application_scope.cancel()


async def _break_off(connection: Connection) -> None:
    """Answer a request that has no answer yet with 403, and end the application."""
    try:
        if connection.protocol.state is State.REQUEST:
            await respond_plainly(connection.send, 403, "You are no longer logged in, or may not stay.")
    except (ConnectionClosed, IllegalMessage):
        pass  # the client has gone, or the application has answered
    connection.application_scope.cancel()
