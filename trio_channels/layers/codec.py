"""How a channel layer message becomes bytes: MessagePack, by msgspec.

Every layer encodes, the in-memory one included, so that what works in a test works between processes.
"""

from __future__ import annotations

import msgspec

from .._asgi.protocol import Message
from ..exceptions import MessageNotEncodable

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder()


def encode(message: Message) -> bytes:
    """The message as MessagePack.

    Raises:
        MessageNotEncodable: it is not a dict with str keys, or holds a value that MessagePack has no type for.
    """
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
        raise _refusal(message, error) from error


def round_trip(message: Message) -> Message:
    """The message as its receiver will see it: a fresh copy, tuples become lists.

    Raises:
        MessageNotEncodable: as :func:`encode`, or what it becomes cannot be read back.
    """
    encoded = encode(message)
    try:
        decoded: Message = _decoder.decode(encoded)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:  # also UnicodeDecodeError, a ValueError
        raise _refusal(message, error) from error
    return decoded


def _refusal(message: Message, error: Exception) -> MessageNotEncodable:
    kind = message.get("type")
    shown = repr(kind) if isinstance(kind, str) else type(kind).__name__  # the repr of anything else may fail, too
    return MessageNotEncodable(
        f"a channel layer message may hold None, bool, int, float, str, bytes, list, dict and dates; "
        f"got one of type {shown} with: {error}"
    )
