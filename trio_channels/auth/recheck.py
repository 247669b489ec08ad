"""Asks again, while a WebSocket is open, whether its user may still be there: the setting ``SESSION_RECHECK``.

A WebSocket outlives what was found out when it was opened: its user may be deleted or deactivated since, may have
changed the password, or have logged out in another tab. Without this a socket stays open until somebody closes it.
"""

from __future__ import annotations

import logging
import random
from typing import TYPE_CHECKING

import trio
from django.contrib.auth import SESSION_KEY

from .. import _conf
from .._asgi.close_codes import POLICY_VIOLATION
from .._asgi.protocol import DISCONNECTS, ASGIApplication, Message, Receive, Scope, Send, describe
from .._threads.database import run_in_worker

if TYPE_CHECKING:
    from collections.abc import Callable

logger = logging.getLogger("trio_channels.auth")


#: What the client is told.
REASON = "the session has ended"


class Recheck:
    """One connection between its server and its application, and the task that closes it when its user may not stay.

    The application learns of it as of a client that has gone: a ``websocket.disconnect`` with 1008.

    Args:
        scope: with a session and the user that was found in it.
        receive: the server's.
        send: the server's.
        may_stay: asks the database, in a worker thread, whether the session's user is who it was.
        interval: seconds between two questions; the first comes somewhat earlier, at a time of its own for each
            connection, so that connections that were opened together do not ask together.
    """

    def __init__(
        self, scope: Scope, receive: Receive, send: Send, may_stay: Callable[[Scope], bool], interval: float
    ) -> None:
        self._scope = scope
        self._receive = receive
        self._send = send
        self._may_stay = may_stay
        self._interval = interval
        self._confirmed = self._claimed() if scope["user"].is_authenticated else None
        self._over = trio.Event()
        self._receiving: trio.CancelScope | None = None

    async def run(self, inner: ASGIApplication) -> None:
        """Run the application.

        Raises:
            Exception: what the application raised, bare.

        Cancellation: as the application's.
        """
        failure: Exception | None = None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._watch)
            try:
                await inner(self._scope, self.receive, self.send)
            except Exception as error:  # it is no business of this nursery's
                failure = error
            nursery.cancel_scope.cancel()
        if failure is not None:
            raise failure
        if self._over.is_set():
            await self._drain()

    async def receive(self) -> Message:
        """The server's next event, or the disconnect that was made here."""
        with trio.CancelScope() as self._receiving:
            if not self._over.is_set():
                event: Message = await self._receive()
                return event
        return {"type": "websocket.disconnect", "code": POLICY_VIOLATION, "reason": REASON}

    async def send(self, message: Message) -> None:
        """Pass a message on; what comes after the close is for nobody."""
        if self._over.is_set():
            await trio.lowlevel.checkpoint()
        else:
            await self._send(message)

    async def _watch(self) -> None:
        pause = self._interval * random.uniform(0.5, 1.0)
        while True:
            await trio.sleep(pause)
            pause = self._interval
            if await self._has_ended():
                break
        logger.info(
            "closing %s with 1008: the session of user %s has ended elsewhere",
            describe(self._scope),
            self._scope["session"][SESSION_KEY],
        )
        self._over.set()
        with trio.move_on_after(_conf.get("CLOSE_TIMEOUT")):
            try:
                await self._send({"type": "websocket.close", "code": POLICY_VIOLATION, "reason": REASON})
            except Exception as error:  # the client has left, or the application has closed, at this very moment
                logger.debug("%s needed not be closed: %r", describe(self._scope), error)
        if self._receiving is not None:
            self._receiving.cancel()

    async def _has_ended(self) -> bool:
        claimed = self._claimed()
        if claimed is None:
            return False
        try:
            if await run_in_worker(self._may_stay, self._scope):
                self._confirmed = claimed
                return False
        except Exception as error:
            # Nobody is thrown out because the database is away for a moment.
            logger.warning(
                "could not ask whether the session of %s has ended; asking again in %g seconds: %r",
                describe(self._scope),
                self._interval,
                error,
            )
            return False
        # A login over this connection may not have been saved yet: it is watched once it has been seen to be.
        return self._confirmed == claimed

    def _claimed(self) -> tuple[str | None, str] | None:
        """Which session of which user the connection has, in memory; None where nobody is logged in."""
        # Not the scope's user: the application may have a copy of the scope, and have logged in or out in that.
        session = self._scope["session"]
        return (session.session_key, session[SESSION_KEY]) if SESSION_KEY in session else None

    async def _drain(self) -> None:
        """Take what the client still sends, as a server may hold a connection until that is done."""
        with trio.move_on_after(_conf.get("CLOSE_TIMEOUT")):
            while (await self._receive())["type"] not in DISCONNECTS:
                pass
