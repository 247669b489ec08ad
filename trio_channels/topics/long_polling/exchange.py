"""One request of long-polling, and its answer.

    GET     no token            a session is opened    410, with its token
    GET     a token             a poll                 200 with messages, 204 without, 410 if the session is gone
    GET     a token, Accept     a stream of events     410 if the session is gone, or cannot be resumed
    POST    a token             messages               200; 410, 400 if they are no messages, 409 during another post
    DELETE  a token             the session ends       200; 410
    OPTIONS                     CORS                   204

A GET that accepts ``text/event-stream`` is one for a stream, see :mod:`.streaming`. The client reads the status in the
body. The HTTP status is 200 for each answer of a session, so that the browser's console does not show the usual ones as
errors.
"""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import parse_qsl

import msgspec
import trio

from ... import _conf
from ..._asgi.protocol import ASGIApplication, announced_length
from ..._http.client import Client
from .forwarding import Request
from .scopes import header, websocket_scope
from .session import GONE, Answer
from .sessions import MARK, Place, Sessions, place_of
from .streaming import HEADERS, Headers, reader, stream

_METHODS = b"GET, POST, DELETE, OPTIONS"

#: The number of the last message that the client of a stream has, and of the first one in its post.
LAST_EVENT_ID, MESSAGE_NUMBER = b"last-event-id", b"x-message-number"
_NUMBERS = LAST_EVENT_ID + b", " + MESSAGE_NUMBER

#: More digits are no number of a message.
_NUMBER = re.compile(rb"[0-9]{1,15}")

#: The client knows no other status for "later"; it tries again after a while.
_LATER = Answer(500)

#: Seconds for which a browser keeps the answer to its question for CORS.
_CORS_AGE = b"600"


class BodyRefused(Exception):
    """The body of the request is too long, or too slow."""


class Exchange:
    """One request."""

    def __init__(self, client: Client, websocket: ASGIApplication, sessions: Sessions) -> None:
        self._client = client
        self._scope = client.scope
        self._websocket = websocket
        self._sessions = sessions
        self._origin = header(client.scope, b"origin")

    async def serve(self) -> None:
        """Answer the request. Raises ClientLeft. Cancellation: a session that was being opened ends."""
        method = self._scope["method"]
        token = self._token()
        place = None if token is None else place_of(token)
        answer = GONE
        try:
            if method == "POST":
                answer = await self._post(place)
            else:
                await self._read_body(keep=False)
        except BodyRefused as refused:
            status = refused.args[0]
            await self._respond(Answer(status), status=status)
            with trio.move_on_after(_conf.limits().close_timeout):
                await self._client.drain()
            return
        if method == "POST":
            await self._answer(answer, token)
        elif method == "GET" and token is None:
            await self._client.while_there(self._open)
        elif method == "GET" and b"text/event-stream" in (header(self._scope, b"accept") or b""):
            await self._client.while_there(self._stream, place)
        elif method == "GET":
            await self._client.while_there(self._ask, "poll", token, place)
        elif method == "DELETE":
            await self._client.while_there(self._ask, "close", token, place)
        elif method == "OPTIONS":
            await self._respond(None, self._allow_all(), status=204)
        else:
            await self._respond(Answer(405), [(b"allow", _METHODS)], status=405)

    def _token(self) -> str | None:
        """The token of a session, which comes last: an application may have a parameter of that name."""
        query = self._scope.get("query_string", b"").decode("latin-1")
        given = [value for name, value in parse_qsl(query) if name == "token" and value.startswith(MARK)]
        return given[-1] if given else None

    async def _read_body(self, keep: bool) -> bytes:
        """The body; empty unless it is to be kept: a client without a session must not fill the memory."""
        if self._client.has_no_body():
            return b""
        limit = _conf.get("MAX_BODY_SIZE")
        if announced_length(self._scope) > limit:
            raise BodyRefused(413)
        body, size, more = bytearray(), 0, True
        with trio.move_on_after(_conf.get("BODY_TIMEOUT")):
            while more:
                part = await self._client.next_part()
                size += len(part.get("body", b""))
                more = part.get("more_body", False)
                if size > limit:
                    raise BodyRefused(413)
                if keep:
                    body += part.get("body", b"")
            return bytes(body)
        raise BodyRefused(408)

    # -- sessions -----------------------------------------------------------------------------------------------------

    async def _open(self) -> None:
        session = await self._sessions.open(self._websocket, websocket_scope(self._scope), self._origin)
        if session is None:
            await self._respond(_LATER, [(b"retry-after", b"1")], status=503)
        elif session.accepted:
            try:
                await self._respond(GONE, session.headers, token=session.token)
            except BaseException:
                session.vanish("the client has gone")
                raise
        elif session.status < 500:
            await self._respond(Answer(403), session.headers, status=session.status, cors=False)
        else:
            await self._respond(_LATER, session.headers, status=session.status, cors=False)

    async def _post(self, place: Place | None) -> Answer:
        with self._sessions.receiving(place) as refusal:
            body = await self._read_body(keep=refusal is None)
            if place is None or refusal is not None:
                return refusal or GONE
            content_type = header(self._scope, b"content-type") or b""
            numbers = {"number": self._number(MESSAGE_NUMBER), "received": self._number(LAST_EVENT_ID)}
            request = Request("post", place.session, self._origin, body, content_type, **numbers)
            return await self._client.while_there(self._sessions.route, place, request)

    async def _ask(self, kind: str, token: str | None, place: Place | None) -> None:
        answer = GONE
        if place is not None:
            answer = await self._sessions.route(place, Request(kind, place.session, self._origin))
        await self._answer(answer, token)

    async def _stream(self, place: Place | None) -> None:
        if place is None:
            await self._respond(GONE)
            return
        request = Request("read", place.session, self._origin, number=self._number(LAST_EVENT_ID))
        answer = await self._sessions.route(place, request)
        if not answer.stream and answer.end is None:
            await self._respond(GONE)
        else:
            read = reader(self._client, self._sessions, place, request)
            await stream(self._client, [*HEADERS, *self._headers()], answer, read)

    def _number(self, name: bytes) -> int:
        """The number in a header; 0 if there is none, and one that no message has if it is malformed."""
        given = header(self._scope, name) or b"0"
        return int(given) if _NUMBER.fullmatch(given) else 10**15

    async def _answer(self, answer: Answer, token: str | None) -> None:
        await self._respond(answer, token=None if answer.status == GONE.status else token)

    # -- answers ------------------------------------------------------------------------------------------------------

    async def _respond(
        self,
        answer: Answer | None,
        more: Headers | None = None,
        *,
        token: str | None = None,
        status: int = 200,
        cors: bool = True,
    ) -> None:
        content: dict[str, Any] | None = None
        if answer is not None:
            content = {"status": answer.status, "token": token, "messages": answer.messages}
        body = b"" if content is None else msgspec.json.encode(content)
        headers: Headers = [
            (b"content-type", b"application/json"),
            (b"content-length", b"%d" % len(body)),
            (b"cache-control", b"no-store"),
            *self._headers(cors),
            *((name, value) for name, value in more or () if name.lower() not in _OURS),
        ]
        await self._client.respond(
            {"type": "http.response.start", "status": status, "headers": headers},
            {"type": "http.response.body", "body": body},
        )

    def _headers(self, cors: bool = True) -> Headers:
        """Those of each answer."""
        headers: Headers = [(b"x-content-type-options", b"nosniff"), (b"vary", b"origin")]
        if cors and self._origin is not None:
            headers.append((b"access-control-allow-origin", self._origin))
        return headers

    def _allow_all(self) -> Headers:
        """The answer for CORS: any page may ask. Its Origin is checked when it opens a session."""
        return [
            (b"access-control-allow-methods", _METHODS),
            (b"access-control-allow-headers", b"content-type, x-phoenix-authtoken, " + _NUMBERS),
            (b"access-control-max-age", _CORS_AGE),
        ]


#: Headers that an application's denial has for a body of its own.
_OURS = frozenset({b"content-type", b"content-length", b"cache-control", b"transfer-encoding", b"vary"})
