"""The format of a stream entry: a version, and the message with its destination, encrypted if there are keys.

    entry = field "t": token, field "b": blob
    blob  = one byte 0x01, then the payload, or the Fernet token of the payload
    payload = [kind, name, message] in MessagePack or JSON; and, all optional, the channels that a message to a group
              excludes, the identity of one that may be sent again, and the context of the sender's trace

The signature covers the name, so that nobody can replay a message of one group to another.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable
from typing import Any, Literal, NamedTuple, Protocol

import msgspec

from ..._asgi.protocol import Message
from ..._tracing import Trace, TracedMessage, current_trace
from ...exceptions import ChannelLayerError, InvalidChannelLayerError
from ..message import encode as check_and_encode

SerializerFormat = Literal["msgpack", "json"]

VERSION = b"\x01"
GROUP, CHANNEL, PROBE, NAMED, PRESENCE = range(5)
MEMBERSHIP = 16


class UndecodableEntry(ChannelLayerError):
    """An entry has another version, was encrypted with other keys, or is malformed."""


class Payload(NamedTuple):
    """The content of an entry: its kind, the name of the group or channel, the message, and what is optional.

    The identity is that of a message that may be sent again; empty otherwise.
    """

    kind: int
    name: str
    message: dict[str, Any]
    exclude: frozenset[str] = frozenset()
    identity: bytes = b""
    trace: Trace | None = None


class _Cipher(Protocol):
    def encrypt(self, msg: bytes) -> bytes: ...

    def decrypt(self, msg: bytes, ttl: int | None = None) -> bytes: ...


class EntryCodec:
    """Encodes messages as blobs, and decodes blobs. The first key encrypts, all decrypt: so keys can be rotated."""

    def __init__(
        self, serializer_format: SerializerFormat = "msgpack", keys: Iterable[str | bytes] | None = None
    ) -> None:
        if serializer_format == "msgpack":
            self._encode, self._decode = msgspec.msgpack.encode, msgspec.msgpack.Decoder(Payload).decode
        elif serializer_format == "json":
            self._encode, self._decode = msgspec.json.encode, msgspec.json.Decoder(Payload).decode
        else:
            raise InvalidChannelLayerError(f"serializer_format must be 'msgpack' or 'json'; got {serializer_format!r}")
        self._is_msgpack = serializer_format == "msgpack"
        self._cipher = _cipher(keys)

    def pack(
        self, kind: int, name: str, message: Message, exclude: frozenset[str] = frozenset(), identity: bytes = b""
    ) -> bytes:
        """Encode a message of a kind (``GROUP`` and so on) for the group or channel of that name."""
        encoded = check_and_encode(message)
        content = kind, name, msgspec.Raw(encoded) if self._is_msgpack else message
        trace = current_trace()
        if trace:
            more: tuple[object, ...] = (exclude, identity, trace)
        else:
            more = (exclude, identity) if identity else (exclude,) if exclude else ()
        payload = self._encode((*content, *more))
        return VERSION + (self._cipher.encrypt(payload) if self._cipher is not None else payload)

    def unpack(self, blob: object) -> Payload:
        """Decode a blob; raises :class:`UndecodableEntry` if this codec cannot read it."""
        if not isinstance(blob, bytes) or not blob.startswith(VERSION):
            raise UndecodableEntry(f"expected an entry of version {VERSION[0]}; got {blob!r:.40}")
        payload = blob[1:]
        try:
            if self._cipher is not None:
                payload = self._cipher.decrypt(payload)
            decoded = self._decode(payload)
        except Exception as error:
            # msgspec and cryptography do not document all errors that malformed input can raise, and none of them
            # may end the reader.
            raise UndecodableEntry(f"an entry cannot be decoded: {type(error).__name__}: {error}") from error
        if decoded.trace:
            decoded = decoded._replace(message=TracedMessage.of(decoded.message, decoded.trace))
        return decoded

    def round_trip(self, value: dict[str, Any]) -> dict[str, Any]:
        """A decoded value as its readers get it: JSON has no bytes."""
        return value if self._is_msgpack else msgspec.json.decode(msgspec.json.encode(value))


def _cipher(keys: Iterable[str | bytes] | None) -> _Cipher | None:
    if keys is None:
        return None
    if isinstance(keys, str | bytes):
        raise InvalidChannelLayerError("symmetric_encryption_keys must be a list of keys; got a single str or bytes")
    try:
        from cryptography.fernet import Fernet, MultiFernet
    except ImportError as error:
        raise InvalidChannelLayerError(
            "symmetric_encryption_keys needs the package cryptography; install it: pip install 'trio-channels[crypto]'"
        ) from error
    fernets = []
    for key in keys:
        if not key or not hasattr(key, "isascii"):
            raise InvalidChannelLayerError("each of symmetric_encryption_keys must be a non-empty str or bytes")
        digest = hashlib.sha256(key.encode() if isinstance(key, str) else key).digest()
        fernets.append(Fernet(base64.urlsafe_b64encode(digest)))
    if not fernets:
        raise InvalidChannelLayerError("symmetric_encryption_keys is empty; leave it out to send in the clear")
    return MultiFernet(fernets)
