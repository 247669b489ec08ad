"""The sessions of one process: their limits, their tokens, and the requests for sessions of other processes."""

from __future__ import annotations

import logging
import math
import secrets
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import trio
from django.core.signing import BadSignature, Signer

from ... import _conf
from ..._asgi.protocol import ASGIApplication, Scope
from ..._connection.lasting import Lasting
from ..._threads.thread import lease_of_task
from ...layers import get_channel_layer
from .forwarding import Request, forward, hear, reaches_other_process
from .session import CONFLICT, GONE, TAKEN, Answer, Session

logger = logging.getLogger("trio_channels.topics")

#: Tells the tokens of sessions from a parameter ``token`` of the application.
MARK = "phxlp1."
_SALT = "trio_channels.topics.long_polling"

#: Seconds between two log lines about too many sessions.
LOG_INTERVAL = 60.0


class Place(NamedTuple):
    """What a token says: the channel of the session's process, "" without a channel layer; and the session's id."""

    channel: str
    session: str


def token_for(place: Place) -> str:
    """The token that names a place."""
    return MARK + Signer(salt=_SALT).sign(f"{place.channel}/{place.session}")


def place_of(token: str) -> Place | None:
    """The place that a token names; None if its signature is not valid."""
    try:
        channel, _, session = Signer(salt=_SALT).unsign(token.removeprefix(MARK)).rpartition("/")
    except BadSignature:
        return None
    return Place(channel, session)


class Sessions:
    """The sessions of a server's lifespan."""

    def __init__(self, lasting: Lasting) -> None:
        self._lasting = lasting
        self._sessions: dict[str, Session] = {}
        self._addresses: Counter[str] = Counter()
        self._logged_at = -math.inf
        self.channel = ""  # on which other processes reach this one
        self._joining = trio.Lock()
        self._receiving: set[str] = set()  # the sessions whose posts this process reads and passes on

    def __len__(self) -> int:
        return len(self._sessions)

    async def open(self, application: ASGIApplication, scope: Scope, origin: bytes | None) -> Session | None:
        """Open a session, and wait for the application's decision; None if there are too many.

        The session has a token if it was accepted. Cancellation: it ends.
        """
        address = str(scope["client"][0]) if scope.get("client") else ""
        if self._lasting.ending.is_set() or self._one_too_many(address):
            return None
        session = Session(scope, origin)
        name = secrets.token_urlsafe(18)
        self._sessions[name] = session
        self._addresses[address] += 1
        self._lasting.nursery.start_soon(self._run, session, application, name, address, name="long-polling")
        try:
            await self._reachable()
            await session.decided.wait()
            session.token = token_for(Place(self.channel, name))
        except BaseException:
            session.vanish("the client has gone")
            raise
        return session

    async def _run(self, session: Session, application: ASGIApplication, name: str, address: str) -> None:
        lease_of_task.set(None)  # of the request, which the session outlives
        try:
            await session.run(application, self._lasting.ending)
        finally:
            del self._sessions[name]
            self._addresses[address] -= 1
            if not self._addresses[address]:
                del self._addresses[address]

    def _one_too_many(self, address: str) -> bool:
        most, most_of_client = _conf.get("LONG_POLL_SESSIONS"), _conf.get("LONG_POLL_SESSIONS_PER_ADDRESS")
        full = len(self._sessions) >= most
        if not full and not (0 < most_of_client <= self._addresses[address] and address):
            return False
        now = trio.current_time()
        if now - self._logged_at >= LOG_INTERVAL:
            self._logged_at = now
            which = "LONG_POLL_SESSIONS" if full else "LONG_POLL_SESSIONS_PER_ADDRESS"
            logger.warning("too many sessions of long-polling are open (%s): refusing new ones", which)
        return True

    async def _reachable(self) -> None:
        """Have this process hear the requests that come to others."""
        layer = get_channel_layer()
        if layer is not None:
            async with self._joining:
                if not self.channel:
                    await self._lasting.nursery.start(hear, layer, self)

    async def answer(self, request: Request) -> Answer:
        """Answer a request for a session of this process. Cancellation: as of the session's methods."""
        session = self._sessions.get(request.session)
        if session is None or (session.origin is not None and request.origin not in (None, session.origin)):
            return GONE
        if request.kind == "poll":
            return await session.poll(_conf.get("LONG_POLL_WINDOW"))
        if request.kind == "read":
            return await session.read(request.stream, request.number, _conf.get("LONG_POLL_WINDOW"))
        if request.kind == "close":
            session.close()
            return TAKEN
        session.acknowledge(request.received)
        return await session.post(request.body, request.content_type, request.number)

    def has(self, name: str) -> bool:
        """Whether a session is one of this process."""
        return name in self._sessions

    @contextmanager
    def receiving(self, place: Place | None) -> Iterator[Answer | None]:
        """In the block, the body of a post is read and passed on: one for each session, as it waits in memory.

        Yields the answer if it is not to be.
        """
        if place is None or not (self.has(place.session) or reaches_other_process(place.channel, self.channel)):
            yield GONE
        elif place.session in self._receiving:
            yield CONFLICT
        else:
            self._receiving.add(place.session)
            try:
                yield None
            finally:
                self._receiving.discard(place.session)

    def start_soon(self, *function_and_args: object) -> None:
        """Start a task in the lifespan's nursery; it handles its exceptions."""
        self._lasting.nursery.start_soon(*function_and_args)  # type: ignore[arg-type]

    async def route(self, place: Place, request: Request) -> Answer:
        """Have a request answered, in whichever process its session is. Cancellation: as :meth:`answer`."""
        layer = get_channel_layer()
        if layer is not None and not self.has(request.session) and reaches_other_process(place.channel, self.channel):
            return await forward(layer, place.channel, request)
        return await self.answer(request)
