"""The part of the process that is asked: it answers to the channel that the question names."""

from __future__ import annotations

import logging
from typing import Any

import msgspec
import trio

from .. import _orders
from .._asgi.protocol import Message
from ..exceptions import ChannelLayerError
from ..layers.base import ChannelLayer
from .report import Question, introduction, report

logger = logging.getLogger("trio_channels.inspector")

#: The types of the question and of the answer.
ASK, ANSWER = "trio_channels.inspect", "trio_channels.report"


def answer_questions() -> None:
    """Have the Trio runs that begin in this process answer questions; called when the app is ready. Idempotent."""
    _orders.functions[ASK] = _hear
    _orders.introduction = _introduce


def _introduce() -> dict[str, Any]:
    introduced: dict[str, Any] = msgspec.to_builtins(introduction())
    return introduced


def _hear(message: Message, layer: ChannelLayer, nursery: trio.Nursery) -> None:
    try:
        question, reply = msgspec.convert(message["question"], Question), msgspec.convert(message["reply"], str)
    except (KeyError, msgspec.ValidationError) as error:
        logger.warning("a question about connections is malformed, and is ignored: %s", error)
        return
    nursery.start_soon(_answer, layer, question, reply)


async def _answer(layer: ChannelLayer, question: Question, reply: str) -> None:
    """Answer. Cancellation: the answer may not arrive."""
    try:
        await layer.send(reply, {"type": ANSWER, "report": msgspec.to_builtins(await report(question))})
    except ChannelLayerError as error:  # the one that asked has gone, or finds this process silent
        logger.debug("a question could not be answered: %s", error)
    except Exception:  # the server goes on
        logger.exception("a question about connections could not be answered")
