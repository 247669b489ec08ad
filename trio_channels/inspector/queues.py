"""The named channels of workers: their backlog and their dead letters, which belong to no process."""

from __future__ import annotations

import logging
from collections.abc import Iterable

import msgspec

from .. import _conf
from .._asgi.masking import mask_url
from ..exceptions import ChannelLayerError
from ..layers import DEFAULT_CHANNEL_LAYER, channel_layers
from ..routing import ChannelNameRouter, ProtocolTypeRouter, get_default_application
from .report import Report, printable

logger = logging.getLogger("trio_channels.inspector")

#: Most dead letters of one channel that are shown.
MOST_LETTERS = 20


class Letter(msgspec.Struct, frozen=True):
    """A dead letter, without its content.

    Args:
        id: of the dead letter.
        type: of the message; "" if it cannot be decoded.
        deliveries: the number of its deliveries.
        why: the last failure, in one line.
    """

    id: str
    type: str
    deliveries: int
    why: str


class Queue(msgspec.Struct, frozen=True):
    """A named channel.

    Args:
        layer: the alias of its channel layer.
        channel: its name.
        backlog: messages that are not done; None if the layer is away.
        dead: dead letters; None if the layer is away.
        letters: the oldest of them, twenty at most.
        running: handlers that run, in the processes that have answered.
        workers: processes that serve it.
    """

    layer: str
    channel: str
    backlog: int | None
    dead: int | None
    letters: list[Letter]
    running: int
    workers: int


def channels_of_application() -> list[str]:
    """The named channels that ``ASGI_APPLICATION`` routes; none if it cannot be imported."""
    try:
        application = get_default_application()
    except Exception as error:  # an error inside the module, too
        logger.debug("the channels of ASGI_APPLICATION are not known: %r", error)
        return []
    if isinstance(application, ProtocolTypeRouter):
        application = application.application_mapping.get("channel", application)
    return sorted(application.application_mapping) if isinstance(application, ChannelNameRouter) else []


async def queues(reports: Iterable[Report], channels: Iterable[str]) -> list[Queue]:
    """The named channels of the workers in these reports, and further ones. Cancellation: at any time."""
    workers: dict[tuple[str, str], list[int]] = {}
    if DEFAULT_CHANNEL_LAYER in channel_layers:
        workers.update({(DEFAULT_CHANNEL_LAYER, channel): [] for channel in channels})
    for seen in reports:
        for worker in seen.workers:
            workers.setdefault((worker.layer, worker.channel), []).append(worker.running)
    return [await _queue(alias, channel, running) for (alias, channel), running in sorted(workers.items())]


async def _queue(alias: str, channel: str, running: list[int]) -> Queue:
    try:
        queue = channel_layers[alias].work_queue(channel)
        size = await queue.size()
        letters = await queue.dead_letters(MOST_LETTERS) if size.dead else []
    except ChannelLayerError as error:
        logger.warning("the size of the queue %r is not available: %s", channel, error)
        return Queue(alias, channel, None, None, [], sum(running), len(running))
    shown = [
        Letter(
            letter.id,
            printable(str((letter.message or {}).get("type", ""))),
            letter.deliveries,
            printable(mask_url(letter.why, _conf.get("MASKED_PARAMETERS"))),
        )
        for letter in letters
    ]
    return Queue(alias, channel, size.backlog, size.dead, shown, sum(running), len(running))
