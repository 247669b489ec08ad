"""A channel layer message: its encoding, its envelope in mailboxes, and the gap that stands for lost ones.

Messages travel as MessagePack, by msgspec. Every layer encodes, the in-memory one included, so that a message that
passes in a test also passes between processes.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator
from dataclasses import dataclass
from typing import Any, TypeVar

import msgspec
import outcome

from .._asgi.content import client_message
from .._asgi.protocol import Message
from .._tracing import carrying
from ..exceptions import MessageNotEncodable

T = TypeVar("T")

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder()


def encode(message: Message) -> bytes:
    """Encode a message as MessagePack; raises MessageNotEncodable unless it is a dict of encodable values."""
    if not isinstance(message, dict):
        raise MessageNotEncodable(
            f"a channel layer message must be a dict such as {{'type': 'chat.message'}}; got {type(message).__name__}"
        )
    for key in message:
        if not isinstance(key, str):
            raise MessageNotEncodable(f"the keys of a channel layer message must be str; got {key!r}")
    try:
        return _encoder.encode(message)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise _not_encodable(message, error) from error


def round_trip(message: Message) -> Message:
    """The message as its receiver sees it: a fresh copy, with lists for tuples."""
    encoded = encode(message)
    try:
        decoded: Message = _decoder.decode(encoded)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:  # also UnicodeDecodeError, a ValueError
        raise _not_encodable(message, error) from error
    return carrying(decoded)


def _not_encodable(message: Message, error: Exception) -> MessageNotEncodable:
    kind = message.get("type")
    shown = repr(kind) if isinstance(kind, str) else type(kind).__name__  # the repr of other objects may fail too
    return MessageNotEncodable(
        f"a channel layer message may hold None, bool, int, float, str, bytes, list, dict and dates; "
        f"got one of type {shown} with: {error}"
    )


#: The place of a message in a group's history: the epoch, in which the history has lost nothing, and the order there.
Place = tuple[str, int, int]


class Envelope(outcome.Outcome[Message]):
    """One message and the Trio time at which it expires, shared by all mailboxes of a fan-out."""

    # Also the outcome that Trio wakes a waiting receiver with. Each receiver unwraps a shallow copy of its own, so
    # that a fan-out to a thousand members allocates no outcome per member.
    __slots__ = ("exclude", "expires_at", "frames", "message", "place", "replayed", "variant")
    # The comparison of outcomes looks at fields that an envelope does not have, and would find all envelopes equal.
    __eq__ = object.__eq__
    __hash__ = object.__hash__  # type: ignore[assignment]

    def __init__(
        self,
        message: Message,
        expires_at: float,
        exclude: frozenset[str] = frozenset(),
        place: Place | None = None,
        *,
        replayed: bool = False,
    ) -> None:
        self.message = message
        self.expires_at = expires_at
        self.exclude = exclude  # the names of members that do not get it
        self.place = place  # in the history of its group, if that has one
        self.replayed = replayed  # read from there
        self.variant: Any = None  # for its receivers: what the first of a kind makes of it, for the others of that kind
        # Of a broadcast: what servers write for it, by the compression that a client has agreed to. Otherwise None.
        self.frames: dict[int, bytes] | None = None if client_message(message) is None else {}

    def __repr__(self) -> str:
        return f"<Envelope {self.message.get('type')!r:.60}>"

    def unwrap(self) -> Message:
        """A shallow copy of the message; may be called any number of times."""
        return self.message.copy()

    def send(self, gen: Generator[T, Message, object]) -> T:
        """Send a copy into a generator."""
        return gen.send(self.unwrap())

    async def asend(self, agen: AsyncGenerator[T, Message]) -> T:
        """Send a copy into an async generator. Cancellation: the generator's."""
        return await agen.asend(self.unwrap())


@dataclass(frozen=True, slots=True)
class Gap:
    """Stands where messages are missing.

    Args:
        lost: the number of missing messages, or None where the layer cannot know it.
        reason: ``overflow`` (the receiver fell behind), ``expired`` (they waited longer than the layer's expiry),
            ``flushed``, or a reason of the backend's own.
    """

    lost: int | None
    reason: str

    def as_event(self) -> dict[str, Any]:
        """The gap as a consumer's ``channel_layer_gap`` handler receives it."""
        return {"type": "channel.layer.gap", "lost": self.lost, "reason": self.reason}


@dataclass(slots=True)
class Counters:
    """The running totals of one layer in one Trio run, shared by its mailboxes; see ``LayerStatistics``."""

    sent: int = 0
    group_sent: int = 0
    delivered: int = 0
    dropped: int = 0
    expired: int = 0
    full: int = 0
    gone: int = 0
    waited: int = 0
    recovered: int = 0
    not_recovered: int = 0
