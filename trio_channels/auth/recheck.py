"""The setting ``SESSION_RECHECK``: checks, while a WebSocket is open, that its user is still logged in.

After the WebSocket was opened its user may be deleted or deactivated, change the password, or log out in another tab.
Without the recheck the WebSocket would stay open.
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
from .._threads.database import run_in_thread

if TYPE_CHECKING:
    from collections.abc import Callable

logger = logging.getLogger("trio_channels.auth")


#: The reason sent to the client.
REASON = "the session has ended"


class Recheck:
    """Stands between server and application, and closes the connection when its user is no longer logged in.

    The application gets a ``websocket.disconnect`` with 1008, as if the client had gone.

    Args:
        scope: a scope with a session and its user.
        receive: the server's.
        send: the server's.
        still_logged_in: called on a thread; checks in the database that the session is still of the same user.
        interval: seconds between two checks. The first one comes earlier, after a random part of the interval, so that
            connections that were opened together do not check together.
    """

    def __init__(
        self, scope: Scope, receive: Receive, send: Send, still_logged_in: Callable[[Scope], bool], interval: float
    ) -> None:
        self._scope = scope
        self._receive = receive
        self._send = send
        self._still_logged_in = still_logged_in
        self._interval = interval
        self._confirmed = self._login() if scope["user"].is_authenticated else None
        self._ended = trio.Event()
        self._receiving: trio.CancelScope | None = None

    async def run(self, inner: ASGIApplication) -> None:
        """Run the application.

        Raises:
            Exception: an exception of the application, bare.

        Cancellation: as the application's.
        """
        failure: Exception | None = None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._watch)
            try:
                await inner(self._scope, self.receive, self.send)
            except Exception as error:  # raised outside the nursery, which would wrap it in a group
                failure = error
            nursery.cancel_scope.cancel()
        if failure is not None:
            raise failure
        if self._ended.is_set():
            await self._drain()

    async def receive(self) -> Message:
        """The server's next event, or a disconnect after the session has ended. Cancellation: the server's."""
        with trio.CancelScope() as self._receiving:
            if not self._ended.is_set():
                event: Message = await self._receive()
                return event
        return {"type": "websocket.disconnect", "code": POLICY_VIOLATION, "reason": REASON}

    async def send(self, message: Message) -> None:
        """Pass a message on; messages after the close are dropped. Cancellation: the server's."""
        if self._ended.is_set():
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
        self._ended.set()
        with trio.move_on_after(_conf.get("CLOSE_TIMEOUT")):
            try:
                await self._send({"type": "websocket.close", "code": POLICY_VIOLATION, "reason": REASON})
            except Exception as error:  # the client or the application has closed meanwhile
                logger.debug("%s was already closed: %r", describe(self._scope), error)
        if self._receiving is not None:
            self._receiving.cancel()

    async def _has_ended(self) -> bool:
        login = self._login()
        if login is None:
            return False
        try:
            if await run_in_thread(self._still_logged_in, self._scope):
                self._confirmed = login
                return False
        except Exception as error:
            # A short outage of the database must not close connections.
            logger.warning(
                "could not check whether the session of %s has ended; checking again in %g seconds: %r",
                describe(self._scope),
                self._interval,
                error,
            )
            return False
        # A login over this connection may not be saved yet: only one that was seen in the database can end.
        return self._confirmed == login

    def _login(self) -> tuple[str | None, str] | None:
        """The connection's session key and user id, in memory; None if no user is logged in."""
        # Not scope["user"]: the application may have logged in or out in a copy of the scope.
        session = self._scope["session"]
        return (session.session_key, session[SESSION_KEY]) if SESSION_KEY in session else None

    async def _drain(self) -> None:
        """Receive until the disconnect: a server may hold a connection until its application has received all."""
        with trio.move_on_after(_conf.get("CLOSE_TIMEOUT")):
            while (await self._receive())["type"] not in DISCONNECTS:
                pass
