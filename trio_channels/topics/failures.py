"""Failures of a topic: how they are told apart, logged, and told to the client."""

from __future__ import annotations

import logging
from collections.abc import Callable

from .._concurrency.exception_groups import leaves
from ..exceptions import ChannelLayerUnavailable, Refused, WorkerPoolBusy
from .payloads import InvalidPayload

logger = logging.getLogger("trio_channels.topics")

#: Errors that waiting helps against. They are logged without a traceback: they are no errors of the application.
TEMPORARY = (ChannelLayerUnavailable, WorkerPoolBusy)

UNAVAILABLE = {"reason": "unavailable"}
JOIN_CRASHED = {"reason": "join crashed"}


class MessagesLost(Exception):
    """Broadcasts to the topic are missing; its client joins again."""


def split(
    raised: BaseException, is_normal: Callable[[BaseException], bool]
) -> tuple[Exception | None, BaseException | None]:
    """The failure in what a topic's nursery has raised, and what is none: a cancellation from outside, an interrupt."""
    errors = [leaf for leaf in leaves(raised) if isinstance(leaf, Exception) and not is_normal(leaf)]
    failure = errors[0] if len(errors) == 1 else ExceptionGroup("several tasks failed", errors) if errors else None
    return failure, BaseExceptionGroup("", [raised]).split(Exception)[1]


def refuses(failure: Exception) -> bool:
    """Whether a join has not failed, but been refused."""
    return isinstance(failure, InvalidPayload | Refused)


def answer_to_join(failure: Exception) -> object:
    """The response of the error reply to a join that has failed."""
    if isinstance(failure, InvalidPayload | Refused):
        return failure.response
    return UNAVAILABLE if isinstance(failure, (*TEMPORARY, MessagesLost)) else JOIN_CRASHED


def log(failure: Exception, place: str) -> None:
    """Log a failure, once."""
    if isinstance(failure, MessagesLost):
        logger.warning("%s ends, and its client is to join again: %s", place, failure)
    elif isinstance(failure, TEMPORARY):
        logger.error("%s ends: %s", place, failure)
    else:
        logger.error("%s has failed; its client is told", place, exc_info=failure)
