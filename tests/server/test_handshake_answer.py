"""The answer that accepts a WebSocket is that of hypercorn's handshake."""

from __future__ import annotations

from typing import Any

import pytest

from trio_channels.server.handshake import Handshake

OFFERS = [
    (b"connection", b"Upgrade"),
    (b"upgrade", b"websocket"),
    (b"sec-websocket-key", b"dGhlIHNhbXBsZSBub25jZQ=="),
    (b"sec-websocket-protocol", b"one, two"),
    (b"sec-websocket-version", b"13"),
]

OF_HTTP_2 = [pair for pair in OFFERS if pair[0] in (b"sec-websocket-protocol", b"sec-websocket-version")]


@pytest.mark.parametrize(("version", "offers"), [("1.1", OFFERS), ("2", OF_HTTP_2)], ids=["HTTP/1.1", "HTTP/2"])
@pytest.mark.parametrize("subprotocol", [None, "one", "two"])
@pytest.mark.parametrize("more", [[], [(b"x-mine", b"1"), (b"X-Mine", b"2")]], ids=["no header", "headers"])
def test_answer_is_hypercorns(version: str, offers: Any, subprotocol: str | None, more: Any) -> None:
    ours, hypercorns = Handshake(offers, version), Handshake(offers, version)
    expected_status, expected, _ = hypercorns.accept(subprotocol, more)
    status, headers = ours.answer(subprotocol, more)
    assert (status, headers) == (expected_status, expected)
    assert ours.accepted


@pytest.mark.parametrize(
    ("offers", "subprotocol", "more"),
    [
        (OFFERS, "three", []),
        (OFFERS[:3], "one", []),
        (OFFERS, None, [(b"sec-websocket-protocol", b"one")]),
        (OFFERS, None, [(b"Sec-WebSocket-Protocol", b"one")]),
        (OFFERS, None, [(b":status", b"200")]),
    ],
    ids=["not offered", "none offered", "header of the subprotocol", "the same in capitals", "pseudo-header"],
)
def test_answer_that_is_not_allowed_raises(offers: Any, subprotocol: str | None, more: Any) -> None:
    handshake = Handshake(offers, "1.1")
    with pytest.raises(ValueError, match="expected"):
        handshake.answer(subprotocol, more)
    assert not handshake.accepted


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(
            (b"x", value)
            for value in (b" a", b"a ", b"\ta", b"a\x0b", b"a\x0cb", b"a\r\ny: b", b"a\nb", b"a\rb", b"\0")
        ),
        *((name, b"a") for name in (b"", b"x ", b"x:", b"x\r\ny", b"\xe4")),
        *((b"content-length", value) for value in (b"a", b"", b"5, 6")),
        *((b"Transfer-Encoding", value) for value in (b"gzip", b"")),
    ],
)
def test_header_that_h11_would_not_send_raises(name: bytes, value: bytes) -> None:
    handshake = Handshake(OFFERS, "1.1")
    with pytest.raises(ValueError, match="header"):
        handshake.answer(None, [(name, value)])
    assert not handshake.accepted
