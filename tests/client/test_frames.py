"""Frames from a server are decoded, or refused with a reason."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trio_channels.client.frames import FrameError, ServerFrame, decode, encode, encode_payload

REPLY = {"status": "ok", "response": {}}


@pytest.mark.parametrize(
    ("message", "frame"),
    [
        ('["1","2","t","e",{}]', ServerFrame("1", "2", "t", "e", {})),
        ('[null,null,"t","e",[1],"p-1"]', ServerFrame(None, None, "t", "e", [1], "p-1")),
        (b"\x00\x01\x01\x011te\xff", ServerFrame("1", None, "t", "e", b"\xff")),
        (b"\x00\x00\x01\x01te", ServerFrame(None, None, "t", "e", b"")),
        (
            b"\x01\x01\x01\x01\x0212tok\x00",
            ServerFrame("1", "2", "t", "phx_reply", {"status": "ok", "response": b"\0"}),
        ),
        (b"\x02\x01\x01te\x01", ServerFrame(None, None, "t", "e", b"\x01")),
    ],
)
def test_frame_is_decoded(message: str | bytes, frame: ServerFrame) -> None:
    assert decode(message) == frame


@pytest.mark.parametrize(
    "message",
    [
        *("", "no JSON", "{}", "[]", "null", '["1","2","t","e"]', '["1","2","t","e",{},null,1]', "[" * 100_000),
        *('[1,"2","t","e",{}]', '["1",2,"t","e",{}]', '["1","2",null,"e",{}]', '["1","2","t",5,{}]'),
        *('["1","2","t","e",{},7]', '["1","2","t","phx_reply",{}]', '["1","2","t","phx_reply",[]]'),
        *('["1","2","t","phx_reply",{"status":1,"response":{}}]', '["1","2","t","phx_reply",{"status":"ok"}]'),
        *(b"", b"\x03\x01\x01te", b"\x02", b"\x02\x01", b"\x02\x01\x02te", b"\x00\x00\x01\x01\xff\xff", b'["1"]'),
    ],
)
def test_message_that_is_no_frame_is_refused(message: str | bytes) -> None:
    with pytest.raises(FrameError, match="expected"):
        decode(message)


@settings(max_examples=40)
@given(st.text() | st.binary() | st.lists(st.none() | st.text() | st.integers(), max_size=7).map(json.dumps))
def test_any_message_is_a_frame_or_is_refused(message: str | bytes) -> None:
    try:
        assert isinstance(decode(message), ServerFrame)
    except FrameError:
        pass


@pytest.mark.parametrize("payload", [None, {"a": [1, "é"]}, b"", b"\x00\xff"])
def test_frame_of_a_client_has_its_form(payload: Any) -> None:
    message = encode("1", "2", "room:é", "e", encode_payload(payload))
    if isinstance(payload, bytes):
        assert message == b"\x00\x01\x01\x07\x01" + "12room:ée".encode() + payload
    else:
        assert isinstance(message, str)
        assert json.loads(message) == ["1", "2", "room:é", "e", {} if payload is None else payload]
