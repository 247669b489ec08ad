"""Requests for a session of another process: they go there over the channel layer, and the answer comes back.

    this process                              the session's process
      longpoll.request    ------------->      hear()
                          <-------------      longpoll.taken, at once, if there is such a session
                          <-------------      longpoll.answer

A process that has ended takes no request: after :data:`PATIENCE` seconds its sessions count as gone.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, NamedTuple

import trio

from ... import _conf
from ..._asgi.protocol import Message
from ...exceptions import ChannelFull, ChannelLayerUnavailable
from ...layers.base import ChannelLayer
from ...layers.message import Envelope
from ...layers.names import process_of
from .session import GONE, Answer

if TYPE_CHECKING:
    from .sessions import Sessions

logger = logging.getLogger("trio_channels.topics")

REQUEST, TAKEN, ANSWER = "longpoll.request", "longpoll.taken", "longpoll.answer"
PREFIX = "longpoll"

#: Seconds in which a living process answers.
PATIENCE = 5.0


class Request(NamedTuple):
    """A request for a session: a "poll", a "read" for a stream, a "post", or a "close".

    `number` is that of the first message of a post, or of the last one that the client of a stream has, or was sent;
    `received` that of the last message that the client has, according to its post.
    """

    kind: str
    session: str
    origin: bytes | None
    body: bytes = b""
    content_type: bytes = b""
    number: int = 0
    received: int = 0
    stream: int = 0


def reaches_other_process(channel: str, own: str) -> bool:
    """Whether a channel is one of another process. Those of the in-memory layer name no process."""
    return channel != own and process_of(channel) not in ("", PREFIX)


async def forward(layer: ChannelLayer, channel: str, request: Request) -> Answer:
    """Have another process answer. Cancellation: the request may be answered, into the void."""
    try:
        with layer.open_mailbox(prefix=PREFIX) as mailbox:
            message = {"type": REQUEST, "reply_to": mailbox.name, "request": list(request)}
            await layer.send(channel, message)
            answer: object = None
            with trio.move_on_after(PATIENCE):
                answer = await mailbox.get()
            if isinstance(answer, dict) and answer["type"] == TAKEN:
                answer = None
                # A poll waits, and the messages of a post wait for the application.
                with trio.move_on_after(PATIENCE + _conf.get("LONG_POLL_WINDOW")):
                    answer = await mailbox.get()
    except (ChannelLayerUnavailable, ChannelFull) as error:
        logger.debug("a request for a session of another process could not be forwarded: %s", error)
        return GONE
    return Answer(*answer["answer"]) if isinstance(answer, dict) and answer["type"] == ANSWER else GONE


async def hear(layer: ChannelLayer, sessions: Sessions, task_status: trio.TaskStatus[None]) -> None:
    """Answer the requests that other processes forward, until the layer fails. Cancellation: nothing is left."""
    broken = trio.Event()

    def offer(envelope: Envelope) -> bool:
        sessions.start_soon(_answer, layer, sessions, envelope.message)
        return True

    def ring() -> None:  # after a gap
        while (item := mailbox.get_nowait()) is not None:
            if isinstance(item, dict):
                sessions.start_soon(_answer, layer, sessions, item)

    try:
        with layer.open_mailbox(ring=ring, offer=offer, prefix=PREFIX) as mailbox:
            mailbox.on_failure = broken.set
            sessions.channel = mailbox.name
            task_status.started()
            await broken.wait()
    except ChannelLayerUnavailable as error:
        logger.debug("other processes cannot reach the sessions of this one yet: %s", error)
        task_status.started()
    finally:
        sessions.channel = ""


async def _answer(layer: ChannelLayer, sessions: Sessions, message: Message) -> None:
    """Answer a request of another process. An error ends this request only."""
    try:
        request = Request(*message["request"])
        reply_to = message["reply_to"]
        if sessions.has(request.session):
            await layer.send(reply_to, {"type": TAKEN})
        answer = await sessions.answer(request)
        await layer.send(reply_to, {"type": ANSWER, "answer": list(answer)})
    except (ChannelLayerUnavailable, ChannelFull) as error:
        logger.debug("a request of another process could not be answered: %s", error)
    except Exception:
        logger.exception("a request of another process for a session of long-polling has failed")
