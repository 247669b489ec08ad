"""Calls of a topic's methods, and the replies to the client's pushes."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from typing import Any

from .._asgi.protocol import Message
from .._threads.database import run_in_thread
from ..exceptions import Refused
from . import frames
from .failures import TEMPORARY, UNAVAILABLE
from .frames import Frame
from .handlers import Handler, Kind
from .payloads import InvalidPayload
from .topic import Topic

logger = logging.getLogger("trio_channels.topics")

UNMATCHED_EVENT = {"reason": "unmatched event"}

Send = Callable[[Message], Awaitable[None]]


async def call(kind: Kind, method: Callable[..., Any], *args: Any) -> Any:
    """Call a method of a topic, on a thread if it is plain. Cancellation: a call on a thread is completed."""
    if kind is Kind.THREAD:
        return await run_in_thread(method, *args)
    return await method(*args)


class Push:
    """One push of a client, and the way to answer it."""

    __slots__ = ("_frame", "_join_ref", "_place", "_send")

    def __init__(self, frame: Frame, join_ref: frames.Ref, send: Send, place: Callable[[], str]) -> None:
        self._frame = frame
        self._join_ref = join_ref
        self._send = send
        self._place = place  # for log lines

    async def reply(self, status: str, response: object) -> None:
        """Answer the push, if the client wants an answer. Cancellation: as a consumer's ``send``."""
        frame = self._frame
        message = frames.reply(self._join_ref, frame.ref, frame.topic, status, response)
        if frame.ref is not None:
            await self._send(message)

    async def handle(self, topic: Topic, has_left: Callable[[], bool]) -> None:
        """Call the push's handler, and reply. Raises the handler's exception. Cancellation: the handler's."""
        event = self._frame.event
        handler = topic._methods.events.get(event)
        if handler is None:
            await self.reply("error", UNMATCHED_EVENT)
            return
        try:
            await self._call(topic, handler, has_left)
        except (InvalidPayload, Refused) as error:
            await self.reply("error", error.response)
        except TEMPORARY as error:
            logger.error("the handler of %r of %s ended: %s", event, self._place(), error)
            await self.reply("error", UNAVAILABLE)
        except Exception as error:
            error.add_note(f"in the handler of {event!r}")
            raise

    async def _call(self, topic: Topic, handler: Handler, has_left: Callable[[], bool]) -> None:
        payload = handler.payload.decode(self._frame.payload)
        method = getattr(topic, handler.method)
        if handler.kind is not Kind.STREAM:
            await self.reply("ok", await call(handler.kind, method, payload))
            return
        values: AsyncGenerator[Any, None]
        async with aclosing(method(payload)) as values:
            async for value in values:
                await self.reply("ok", value)
                if has_left():
                    return
        await self.reply("end", None)


async def handle_out(topic: Topic, kind: Kind, message: Message) -> None:
    """Have a topic see a broadcast. Raises the method's exception. Cancellation: the method's."""
    event = message["event"]
    try:
        await call(kind, getattr(topic, "handle_out"), event, frames.payload_of(message))  # noqa: B009 - not all have it
    except Exception as error:
        error.add_note(f"in handle_out() for {event!r}")
        raise
