"""A client of long-polling, through communicators, and a site for it."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, NamedTuple
from urllib.parse import quote

from trio_channels._connection.lasting import current
from trio_channels.layers import InMemoryChannelLayer
from trio_channels.routing import ProtocolTypeRouter, URLRouter
from trio_channels.testing import HttpCommunicator
from trio_channels.testing.lifespan import running_lifespan
from trio_channels.topics import LongPolling, Topic, TopicSocket
from trio_channels.topics.long_polling.sessions import Sessions

NDJSON = [(b"content-type", b"application/x-ndjson")]
Headers = Sequence[tuple[bytes, bytes]]


class Reply(NamedTuple):
    """An answer: the HTTP status, its headers, and the body's fields."""

    http: int
    headers: dict[bytes, bytes]
    status: int | None = None
    token: str | None = None
    messages: Sequence[str] = ()

    @property
    def frames(self) -> list[Any]:
        return [json.loads(message) for message in self.messages]


class LongPollClient:
    """One client; `headers` come with each of its requests."""

    def __init__(self, application: Any, query: str = "vsn=2.0.0", headers: Headers = ()) -> None:
        self.application = application
        self.query = query
        self.headers = list(headers)
        self.token: str | None = None
        self._waiting: list[Any] = []

    def request(self, method: str, body: bytes = b"", headers: Headers = ()) -> HttpCommunicator:
        token = "" if self.token is None else f"&token={quote(self.token, safe='')}"
        path = f"/socket/longpoll?{self.query}{token}"
        communicator = HttpCommunicator(self.application, method, path, body, [*self.headers, *headers])
        communicator.timeout = 30.0
        return communicator

    async def ask(self, method: str, body: bytes = b"", headers: Headers = ()) -> Reply:
        async with self.request(method, body, headers) as communicator:
            return await reply_of(communicator)

    async def open(self) -> Reply:
        reply = await self.ask("GET")
        self.token = reply.token
        return reply

    async def poll(self) -> Reply:
        return await self.ask("GET")

    async def post(self, *messages: Any) -> Reply:
        """Post frames, as lists or bytes; a str is posted as it is."""
        lines = [
            base64.b64encode(message).decode()
            if isinstance(message, bytes)
            else message
            if isinstance(message, str)
            else json.dumps(message)
            for message in messages
        ]
        return await self.ask("POST", "\n".join(lines).encode(), NDJSON)

    async def receive(self) -> Any:
        """The next frame."""
        while not self._waiting:
            reply = await self.poll()
            assert reply.status in (200, 204), reply
            self._waiting += reply.frames
        return self._waiting.pop(0)


async def reply_of(communicator: HttpCommunicator) -> Reply:
    response = await communicator.get_response()
    headers = dict(response["headers"])
    if headers.get(b"content-type") != b"application/json" or not response["body"]:
        return Reply(response["status"], headers)
    return Reply(response["status"], headers, **json.loads(response["body"]))


def socket_of(*topics: type[Topic], **attributes: Any) -> type[TopicSocket]:
    """A socket of these topics, with a channel layer of its own."""
    made: type[TopicSocket] = type(
        "Socket", (TopicSocket,), {"topics": topics, "channel_layer": InMemoryChannelLayer(), **attributes}
    )
    return made


def site(websocket: Any) -> ProtocolTypeRouter:
    """The application for WebSockets over both transports."""
    return ProtocolTypeRouter({"http": LongPolling(websocket), "websocket": websocket})


def routed(application: Any) -> URLRouter:
    """Routes that lead to an application for WebSockets."""
    from django.urls import path

    return URLRouter([path("socket/websocket", application)])


@asynccontextmanager
async def served(websocket: Any) -> AsyncIterator[ProtocolTypeRouter]:
    """The application, in its lifespan; at the end no session may be left."""
    application = site(websocket)
    async with running_lifespan(application):
        yield application
        sessions = open_sessions()
    assert len(sessions) == 0
    assert not sessions._addresses


def open_sessions() -> Sessions:
    """The sessions of the lifespan."""
    lasting = current()
    assert lasting is not None
    sessions: Sessions = lasting.parts.setdefault(Sessions, Sessions(lasting))
    return sessions


STREAM = [(b"accept", b"text/event-stream")]


class StreamClient(LongPollClient):
    """A client of streams.

    Attributes:
        received: the number of the last message that has come.
        sent: the number of the last message that it has posted.
    """

    received = 0
    sent = 0

    @asynccontextmanager
    async def streaming(self, after: int | bytes | None = None) -> AsyncIterator[HttpCommunicator]:
        """A stream behind a message, by default the last one that has come; the end of the block cuts it."""
        last = self.received if after is None else after
        number = last if isinstance(last, bytes) else b"%d" % last
        async with self.request("GET", headers=[*STREAM, (b"last-event-id", number)]) as stream:
            await stream.send_request()
            yield stream
            if not stream._complete:
                await stream.disconnect()

    async def next_frame(self, stream: HttpCommunicator) -> Any:
        """The next message, which must be the one after the last."""
        event = await stream.receive_event()
        assert (event.event, event.id) in {("message", str(self.received + 1)), ("binary", str(self.received + 1))}
        self.received += 1
        return base64.b64decode(event.data) if event.event == "binary" else json.loads(event.data)

    async def post_numbered(self, *messages: Any, first: int | bytes | None = None) -> Reply:
        """Post frames with the number of the first one, and of the last message that has come."""
        if first is None:
            first, self.sent = self.sent + 1, self.sent + len(messages)
        number = first if isinstance(first, bytes) else b"%d" % first
        numbers = [(b"x-message-number", number), (b"last-event-id", b"%d" % self.received)]
        return await self.ask("POST", "\n".join(map(json.dumps, messages)).encode(), [*NDJSON, *numbers])


async def end_of(stream: HttpCommunicator) -> tuple[int, str] | None:
    """How the session ends; None if the response ends without a word."""
    try:
        event = await stream.receive_event()
    except EOFError:
        return None
    assert event.event == "close", event
    fields = event.json()
    return fields["code"], fields["reason"]
