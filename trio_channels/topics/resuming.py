"""Resume: each broadcast of a topic with history carries a position, which a client gives when it joins again.

A topic has a history if the option ``history`` of the channel layer has a pattern for its group. Then:

- the text frame of a broadcast has a sixth element, the position, which clients that do not know it ignore;
- behind a binary broadcast, and behind what ``handle_out`` has sent for one, follows a frame with the event
  ``phx_position`` and the position as its sixth element;
- the client gives the last position that it has seen as ``since`` in the parameters of its join. The reply says whether
  it was ``recovered``, and the ``position`` to go on from; what was missed follows.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from .._asgi.protocol import Message
from ..layers.history import KEY, Recovery
from ..layers.message import Envelope
from . import frames

#: The event of a frame that has nothing but a position.
POSITION = "phx_position"


class _Since(msgspec.Struct):
    since: str | None = None


_decoder = msgspec.json.Decoder(_Since)


class Positioned:
    """A broadcast whose frame carries its position, with the frames that servers have made of it."""

    __slots__ = ("frames", "message")

    def __init__(self, message: Message) -> None:
        self.message = with_position(message)
        self.frames: dict[int, bytes] | None = {}


def positioned(envelope: Envelope) -> Positioned:
    """A broadcast with its position, made once for all members in the process."""
    if envelope.variant is None:
        envelope.variant = Positioned(envelope.message)
    made: Positioned = envelope.variant
    return made


def since_of(params: msgspec.Raw | bytes) -> str | None:
    """The position in the parameters of a join; None if there is none, or no valid one."""
    try:
        return _decoder.decode(params).since
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None


def with_recovery(response: Any, recovery: Recovery) -> dict[str, Any]:
    """The reply to a join of a topic with history. Raises TypeError unless the topic's own reply is an object."""
    own = {} if response is None else msgspec.to_builtins(response)
    if not isinstance(own, Mapping):
        raise TypeError(
            f"join() of a topic with history must return a dict, a msgspec.Struct or None, as the reply also says "
            f"'recovered' and 'position'; got {type(response).__name__}"
        )
    return {**own, "recovered": recovery.recovered, "position": recovery.position}


def position_of(message: Message) -> str | None:
    """The position of a broadcast; None if its topic has no history."""
    place = message.get(KEY)
    return None if place is None else place["position"]


def with_position(message: Message) -> Message:
    """A broadcast as its clients get it: with the position in its frame, if that is text."""
    position, text = position_of(message), message.get("text")
    if text is None:
        return {"type": "websocket.send", "bytes": message["bytes"]}
    if position is not None:
        text = f"{text[:-1]},{_json(position)}]"
    return {"type": "websocket.send", "text": text}


def position_frame(message: Message) -> Message | None:
    """The frame that tells a client the position of a broadcast which has none in its own; None without history."""
    position = position_of(message)
    if position is None:
        return None
    return with_position({**frames.broadcast(message["topic"], POSITION, None), KEY: {"position": position}})


def _json(text: str) -> str:
    return msgspec.json.encode(text).decode()
