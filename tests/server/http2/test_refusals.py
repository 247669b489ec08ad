"""Each refusal over HTTP/2 is counted, and has a line in the access log."""

from __future__ import annotations

import logging
from typing import NamedTuple

import pytest
import trio.testing
from h2.errors import ErrorCodes as E

from trio_channels.server import statistics

from .cases import Answers, Ends, Expected, Resets, literal
from .raw import Reads, block, frame, headers, post, raw, request
from .test_conformance import takes_case

#: ``/ä`` in Latin-1, which h2 lets pass.
NOT_ASCII = block([pair for pair in request() if pair[0] != ":path"]) + literal(b":path", b"/\xe4")


class Row(NamedTuple):
    name: str
    sent: bytes
    expected: Expected
    status: int
    line: str
    ended: dict[str, int]


ROWS = [
    Row("path that is not ASCII", frame(1, 5, 1, NOT_ASCII), Answers(400), 400, "GET /ä 2", {}),
    Row("no path", headers(1, [(":method", "CONNECT"), (":authority", "x")]), Answers(400), 400, "CONNECT - 2", {}),
    Row(
        "another protocol",
        headers(1, [(":protocol", "x"), *request("/", "CONNECT")], 4),
        Answers(501),
        501,
        "CONNECT / 2",
        {},
    ),
    Row(
        "no body of the length",
        headers(1, request("/", "GET", ("content-length", "1"))),
        Resets(E.PROTOCOL_ERROR),
        400,
        "GET / 2",
        {},
    ),
    Row("frame too large", frame(0, 0, 1, size=20_000), Ends(E.FRAME_SIZE_ERROR), 400, "- - 2", {"bad input": 1}),
    Row("invalid HPACK", frame(1, 5, 1, b"\x40"), Ends(E.COMPRESSION_ERROR), 400, "- - 2", {"bad input": 1}),
    Row(
        "fields too long",
        frame(1, 5, 1, block(request()) + literal(b"x", b"y" * 120, b"\x40") + b"\xbe" * 9_000),
        Ends(E.ENHANCE_YOUR_CALM),
        431,
        "- - 2",
        {"bad input": 1},
    ),
]


@pytest.fixture
def access(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO, "trio_channels.access")
    return caplog


def lines(access: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in access.records if record.name == "trio_channels.access"]


@pytest.mark.parametrize("row", ROWS, ids=[row.name for row in ROWS])
async def test_refusal_is_counted_and_logged(row: Row, access: pytest.LogCaptureFixture) -> None:
    async with raw(Reads()) as client:
        await takes_case(client, row.sent, row.expected)
        assert statistics().refusals == {row.status: 1}
        assert statistics().ended == row.ended
    (line,) = lines(access)
    assert f'"{row.line}" {row.status} ' in line


async def test_client_that_sends_no_body_in_time_is_logged(
    access: pytest.LogCaptureFixture, clock: trio.testing.MockClock
) -> None:
    async with raw(Reads()) as client:
        await client.send(post())
        assert not await client.until(lambda: False)
        assert [code for _, code in client.goaways] == [E.ENHANCE_YOUR_CALM]
        assert statistics().refusals == {408: 1}
    assert any('"- - 2" 408 ' in line for line in lines(access))


async def test_idle_client_is_sent_away_without_a_refusal(
    access: pytest.LogCaptureFixture, clock: trio.testing.MockClock
) -> None:
    async with raw() as client:
        assert await client.get(1) == 200
        assert not await client.until(lambda: False)
        assert [code for _, code in client.goaways] == [E.NO_ERROR]
        assert statistics().refusals == {}
    assert len(lines(access)) == 1


async def test_method_cannot_forge_a_line(access: pytest.LogCaptureFixture) -> None:
    async with raw() as client:
        assert await client.lives()
        await client.send(
            headers(
                1,
                request(
                    "/",
                    'x" 200',
                ),
                5,
            )
        )
        await client.answer(1)
    assert '\\"' in lines(access)[0]
