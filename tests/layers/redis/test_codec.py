"""The codec of stream entries: round trips, and rubbish, which raises the codec's own error only."""

from __future__ import annotations

import base64
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_channels.exceptions import InvalidChannelLayerError, MessageNotEncodable
from trio_channels.layers.redis.codec import CHANNEL, GROUP, VERSION, EntryCodec, Payload, UndecodableEntry

PLAIN, JSON, SECRET = EntryCodec(), EntryCodec("json"), EntryCodec(keys=["key"])
CODECS = pytest.mark.parametrize("codec", [PLAIN, JSON, SECRET], ids=["msgpack", "json", "encrypted"])

values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abc", max_size=3), inner, max_size=3),
    max_leaves=8,
)
messages = st.dictionaries(st.text("abc", max_size=3), values, max_size=4)


@CODECS
@given(message=messages)
def test_message_comes_out_as_it_went_in(codec: EntryCodec, message: dict[str, Any]) -> None:
    assert codec.unpack(codec.pack(GROUP, "room", message)) == Payload(GROUP, "room", message)


@pytest.mark.parametrize("codec", [PLAIN, SECRET], ids=["msgpack", "encrypted"])
@given(data=st.binary())
def test_bytes_come_out_as_bytes(codec: EntryCodec, data: bytes) -> None:
    assert codec.unpack(codec.pack(CHANNEL, "c", {"data": data})).message == {"data": data}


@CODECS
@given(blob=st.binary() | st.binary().map(lambda data: VERSION + data))
def test_from_arbitrary_bytes_comes_an_entry_or_the_error_for_it(codec: EntryCodec, blob: bytes) -> None:
    try:
        payload = codec.unpack(blob)
    except UndecodableEntry:
        return
    assert isinstance(payload, Payload)
    assert isinstance(payload.message, dict)


@CODECS
@given(message=messages, data=st.data())
def test_mutilated_entry_is_an_entry_or_the_error_for_it(codec: EntryCodec, message: Any, data: Any) -> None:
    blob = bytearray(codec.pack(GROUP, "room", message))
    blob[data.draw(st.integers(0, len(blob) - 1))] ^= data.draw(st.integers(1, 255))
    del blob[data.draw(st.integers(1, len(blob))) :]
    try:
        assert isinstance(codec.unpack(bytes(blob)).message, dict)
    except UndecodableEntry:
        pass


@given(message=messages, data=st.data())
def test_forged_entry_is_refused(message: Any, data: Any) -> None:
    blob = SECRET.pack(GROUP, "room", message)
    # Change bytes, not letters: several base64 texts stand for the same bytes ("+" and "-" are read as one).
    token = bytearray(base64.urlsafe_b64decode(blob.removeprefix(VERSION)))
    token[data.draw(st.integers(0, len(token) - 1))] ^= data.draw(st.integers(1, 255))
    with pytest.raises(UndecodableEntry):
        SECRET.unpack(VERSION + base64.urlsafe_b64encode(token))


@CODECS
@pytest.mark.parametrize("version", [0, 2, 255])
def test_entry_of_another_version_is_refused_and_said_to_be_one(codec: EntryCodec, version: int) -> None:
    blob = codec.pack(GROUP, "room", {"type": "x"})
    with pytest.raises(UndecodableEntry, match="version 1"):
        codec.unpack(bytes([version]) + blob[1:])


@CODECS
@pytest.mark.parametrize("rubbish", [None, 5, "text", b"", [], {}], ids=repr)
def test_what_is_no_bytes_is_refused(codec: EntryCodec, rubbish: object) -> None:
    with pytest.raises(UndecodableEntry):
        codec.unpack(rubbish)


@pytest.mark.parametrize(
    "payload",
    [
        [],
        ["x", "room", {}],
        [GROUP, 5, {}],
        [GROUP, "room", []],
        [GROUP, "room", {5: 6}],
        {"kind": 0},
        [GROUP, "room"],
        None,
    ],
    ids=repr,
)
def test_entry_of_another_shape_is_refused(payload: Any) -> None:
    with pytest.raises(UndecodableEntry):
        PLAIN.unpack(VERSION + msgspec.msgpack.encode(payload))


def test_entry_nested_beyond_reason_is_refused() -> None:
    with pytest.raises(UndecodableEntry):
        PLAIN.unpack(VERSION + b"\x93\x00\xa1a\x81\xa1b" + b"\x91" * 100_000 + b"\xc0")


def test_what_cannot_travel_is_refused_before_it_is_sent() -> None:
    for codec in (PLAIN, JSON, SECRET):
        with pytest.raises(MessageNotEncodable):
            codec.pack(GROUP, "room", {"type": "x", "value": object()})


def test_without_the_key_nothing_can_be_read() -> None:
    blob = SECRET.pack(GROUP, "room", {"type": "x", "text": "the message"})
    assert b"message" not in blob
    for other in (EntryCodec(keys=["other"]), PLAIN):
        with pytest.raises(UndecodableEntry):
            other.unpack(blob)


def test_what_is_not_encrypted_is_refused_where_keys_are_set() -> None:
    with pytest.raises(UndecodableEntry):
        SECRET.unpack(PLAIN.pack(GROUP, "room", {"type": "x"}))


def test_keys_can_be_rotated_in_three_steps() -> None:
    old, both, turned, new = (EntryCodec(keys=keys) for keys in (["a"], ["a", "b"], ["b", "a"], ["b"]))
    for sender, receivers in ((old, (old, both, turned)), (both, (old, both, turned)), (turned, (both, turned, new))):
        blob = sender.pack(GROUP, "room", {"type": "x"})
        for receiver in receivers:
            assert receiver.unpack(blob).message == {"type": "x"}
    with pytest.raises(UndecodableEntry):
        new.unpack(old.pack(GROUP, "room", {"type": "x"}))


def test_key_may_be_text_or_bytes() -> None:
    blob = EntryCodec(keys=[b"key"]).pack(GROUP, "room", {"type": "x"})
    assert SECRET.unpack(blob).message == {"type": "x"}


@pytest.mark.parametrize("keys", ["key", b"key", [""], [b""], [5], [None]], ids=repr)
def test_keys_that_are_none_are_refused(keys: Any) -> None:
    with pytest.raises(InvalidChannelLayerError):
        EntryCodec(keys=keys)


def test_unknown_format_is_refused() -> None:
    with pytest.raises(InvalidChannelLayerError, match="pickle"):
        EntryCodec("pickle")  # type: ignore[arg-type]
