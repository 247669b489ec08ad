"""The response to the GET of a stream: server-sent events, as long as the session lasts.

The rules:

1. The session is read again and again, so that a stream takes no more memory than a poll, in whichever process it is.
2. A message stays in the session until its client has acknowledged it, by ``Last-Event-ID`` of the next GET or of a
   post. So a stream that was cut goes on without a hole and without a double.
3. The end of the session is an event, ``close``, with the close code. A response that ends without it was cut.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import trio

from ... import _conf
from ..._concurrency.drain import DRAIN, Drain
from ..._http.client import Client, ClientLeft
from .batches import close_event, event_of
from .forwarding import Request
from .session import CONFLICT, Answer
from .sessions import Place, Sessions

#: A comment, so that no proxy takes the connection for a dead one.
HEARTBEAT = ":\n\n"

Headers = list[tuple[bytes, bytes]]

#: Proxies must neither keep the events, nor collect them, nor compress them.
HEADERS: Headers = [
    (b"content-type", b"text/event-stream"),
    (b"cache-control", b"no-store, no-transform"),
    (b"x-accel-buffering", b"no"),
]

Read = Callable[[Answer], Awaitable[Answer]]


def reader(client: Client, sessions: Sessions, place: Place, request: Request) -> Read:
    """A function that reads a session again, behind the answer to the last read. At the server's end it reads no more.

    Args:
        request: the first one.
    """
    drain: Drain = (client.scope.get("extensions") or {}).get(DRAIN) or Drain()

    async def read(last: Answer) -> Answer:
        following = request._replace(stream=last.stream, number=last.last)
        if sessions.has(place.session):  # it ends with the server, and the client is told
            return await sessions.answer(following)
        answer = CONFLICT
        if not drain.begun:
            with trio.CancelScope() as scope, drain.cutting(scope):
                answer = await sessions.route(place, following)
        return answer

    return read


async def stream(client: Client, headers: Headers, answer: Answer, read: Read) -> None:
    """Send the answers to reads as events, the first one at once.

    Raises ClientLeft, also if the client takes nothing for ``LONG_POLL_TIMEOUT`` seconds. Cancellation: the response is
    cut, and the client can resume.
    """
    patience: float = _conf.get("LONG_POLL_TIMEOUT")
    await client.send({"type": "http.response.start", "status": 200, "headers": headers})
    while content := content_of(answer):
        with trio.move_on_after(patience) as scope:
            await client.send({"type": "http.response.body", "body": content.encode(), "more_body": True})
        if scope.cancelled_caught:
            raise ClientLeft
        if answer.end is not None:
            break
        answer = await read(answer)
    await client.send({"type": "http.response.body"})


def content_of(answer: Answer) -> str:
    """The events of an answer; empty if the stream ends without a word."""
    if answer.end is not None:
        return close_event(*answer.end)
    if not answer.stream:
        return ""
    first = answer.last - len(answer.messages) + 1
    return "".join(map(event_of, range(first, answer.last + 1), answer.messages)) or HEARTBEAT
