"""Header lines that the server keeps for other clients: those of common fields, short ones, and so many."""

from __future__ import annotations

import pytest

from trio_channels.server import plain

LONGEST = 2**16


@pytest.fixture(autouse=True)
def known(monkeypatch: pytest.MonkeyPatch) -> dict[bytes, tuple[bytes, bytes]]:
    lines: dict[bytes, tuple[bytes, bytes]] = {}
    monkeypatch.setattr(plain, "_known", lines)
    return lines


def fields_of(*lines: bytes) -> list[tuple[bytes, bytes]]:
    found = plain.plain_request(b"\r\n".join([b"GET / HTTP/1.1", b"Host: a", *lines, b"", b""]), LONGEST)
    assert found is not None
    return found[1].headers[1:]


def test_line_of_a_common_field_is_shared(known: dict[bytes, tuple[bytes, bytes]]) -> None:
    (first,), (second,) = fields_of(b"Accept: text/html"), fields_of(b"Accept: text/html")
    assert first is second
    assert first == (b"accept", b"text/html")
    assert set(known) == {b"Host: a", b"Accept: text/html"}


@pytest.mark.parametrize(
    "line",
    [
        *(b"Cookie: sessionid=secret", b"COOKIE:secret", b"Authorization: Bearer secret", b"X-CSRFToken: secret"),
        *(b"Proxy-Authorization: Basic secret", b"X-Api-Key: secret", b"Sec-WebSocket-Protocol: token.secret"),
        *(b"Referer: https://a/?token=secret", b"X-Forwarded-For: 192.0.2.1", b"Accept: " + b"a" * 150),
    ],
)
def test_line_that_may_be_secret_or_is_long_is_not_kept(line: bytes, known: dict[bytes, tuple[bytes, bytes]]) -> None:
    fields_of(line)
    assert set(known) == {b"Host: a"}


def test_number_of_lines_has_a_limit(known: dict[bytes, tuple[bytes, bytes]]) -> None:
    for number in range(1200):
        assert fields_of(b"User-Agent: %d" % number) == [(b"user-agent", b"%d" % number)]
        assert len(known) <= 500
