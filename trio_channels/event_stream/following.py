"""The events of one client, from the subscription to the end of the response.

The rules:

- The first event is ``stream.open``. It comes when the membership has begun, with the id to come back from, and says
  whether the client gets everything behind its last event id. If it does not, ``stream.gap`` comes before it.
- A ``stream.gap`` has no id: a client that loses its connection right behind it comes back from the event before.
- A client that falls behind, and one whose channel layer is away, is sent away: its browser comes back by itself, and
  gets what the history has kept. An error status would end an ``EventSource`` for ever.
- A server that ends sends its clients away at once.
"""

from __future__ import annotations

import logging
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, NamedTuple

import msgspec
import trio

from .._asgi.protocol import Message
from .._concurrency.drain import Drain
from ..exceptions import ChannelLayerUnavailable, MailboxOverflow
from ..layers.base import ChannelLayer, Gap
from ..layers.history import KEY, NOT_RECOVERED
from ..layers.subscription import Subscription
from . import wire
from .messages import content_of
from .positions import Positions

logger = logging.getLogger("trio_channels.event_stream")

OPEN, GAP = "stream.open", "stream.gap"

#: The reasons of gaps that are no channel layer's.
NOT_ENCODED, OVERFLOW = "not encoded", "overflow"

#: Makes an event of a message's name and payload: the name and the data, or None for no event.
Encode = Callable[[str, Any], Awaitable[tuple[str, str] | None]]


class Source(NamedTuple):
    """The parts of one client's stream."""

    layer: ChannelLayer
    groups: tuple[str, ...]
    last_event_id: str | None
    encode: Encode
    heartbeat: float
    retry: float
    drain: Drain
    place: str  # in the log


async def follow(source: Source) -> AsyncIterator[bytes]:
    """The parts of the response's body. Cancellation, and the iterator's end: the membership ends."""
    yield wire.retry(_spread(source.retry))
    positions = Positions(source.groups, source.last_event_id)
    since: dict[str, Any] = (
        {"since": positions.given} if positions.given else {}
    )  # a layer without history need not know the argument
    try:
        async with source.layer.subscribe(*source.groups, **since) as events:
            client = _Client(source, events, positions)
            part: bytes | None = client.opening()
            while part is not None:
                yield part
                part = await client.next_part()
    except MailboxOverflow:
        logger.info("%s fell behind, and is sent away to come back", source.place)
        if not all(map(source.layer.has_history, source.groups)):
            yield _gap(Gap(None, OVERFLOW))
    except ChannelLayerUnavailable as error:
        logger.warning("%s is sent away to come back, as the channel layer is away: %s", source.place, error)
    # Those that are sent away together do not come back together.
    yield wire.retry(_spread(source.retry))


def _spread(seconds: float) -> float:
    return seconds * random.uniform(1.0, 2.0)


def _gap(gap: Gap, event_id: str | None = None) -> bytes:
    return wire.block(GAP, _json({"lost": gap.lost, "reason": gap.reason}), event_id)


def _json(content: dict[str, Any]) -> str:
    return msgspec.json.encode(content).decode()


class _Client:
    """A client whose membership has begun."""

    def __init__(self, source: Source, events: Subscription, positions: Positions) -> None:
        self._source = source
        self._events = events
        self._positions = positions
        self._told: str | None = None  # the last event id that the client has

    def opening(self) -> bytes:
        """The first event."""
        recovery, positions = self._events.recovery, self._positions
        for group, joined in recovery.items():
            positions.move(group, joined.position)
        recovered = bool(recovery) and all(joined.recovered for joined in recovery.values())
        first = b"" if recovered or not positions.given else _gap(Gap(None, NOT_RECOVERED))
        self._told = positions.event_id
        return first + wire.block(OPEN, _json({"recovered": recovered}), self._told)

    async def next_part(self) -> bytes | None:
        """Wait for something to send; None at the end. Cancellation: loses no message but one that is encoded."""
        source = self._source
        while not source.drain.begun:
            item: Message | Gap | None = None
            with trio.move_on_after(source.heartbeat) as scope, source.drain.cutting(scope):
                try:
                    item = await anext(self._events)
                except StopAsyncIteration:  # the layer has been closed
                    return None
            part = await self._part_of(item)
            if part and not (item is None and source.drain.begun):
                return part
        return None

    async def _part_of(self, item: Message | Gap | None) -> bytes:
        """What the client gets; empty if that is nothing."""
        if item is None:
            event_id = self._positions.event_id
            if event_id is None or event_id == self._told:
                return wire.HEARTBEAT
            self._told = event_id  # after messages that were no events for this client, it comes back from here
            return wire.id_only(event_id)
        if isinstance(item, Gap):
            return b"" if item.reason == NOT_RECOVERED else _gap(item)  # the client knows
        part = await self._event(item)
        if part:
            self._told = self._positions.event_id
        return part

    async def _event(self, message: Message) -> bytes:
        place = message.get(KEY)
        if place is not None and self._is_place(place):
            del message[KEY]
            self._positions.move(place["group"], place["position"])
        try:
            encoded = await self._source.encode(*content_of(message))
            return b"" if encoded is None else wire.block(*encoded, self._positions.event_id)
        except Exception:
            # The client must get over it: it would come back to the same message for ever.
            logger.exception(
                "a message of type %r is no event on %s, whose client is told of a gap",
                message.get("type"),
                self._source.place,
            )
            return _gap(Gap(1, NOT_ENCODED), self._positions.event_id)

    def _is_place(self, value: object) -> bool:
        """Whether it is a position, and not an application's own value in a group without history."""
        if not isinstance(value, dict) or value.keys() != {"group", "position"}:
            return False
        return value["group"] in self._source.groups and self._source.layer.has_history(value["group"])
