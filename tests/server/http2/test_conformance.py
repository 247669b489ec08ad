"""RFC 9113 and RFC 7541, case by case, over clear text and TLS, with a healthy client beside each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from h2.errors import ErrorCodes

from tests.certificate import make_certificate
from tests.process import ROOT

from .cases import Answers, Case, Ends, Expected, Lives, Resets
from .frame_cases import FRAMES
from .http_cases import HPACK, HTTP
from .raw import ACK, PING, PREFACE, SETTINGS, Raw, Reads, frame, headers, settings, transport

CASES = [*FRAMES, *HTTP, *HPACK]


class Slow(Reads):
    """Answers ``/slow`` at the end only."""

    async def http(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] != "/slow":
            await super().http(scope, receive, send)
            return
        while (await receive())["type"] != "http.disconnect":
            pass


@pytest.fixture(scope="module", params=["clear text", "TLS"])
def certificate(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path] | None:
    return make_certificate(tmp_path_factory.mktemp("certificate")) if request.param == "TLS" else None


async def takes_case(client: Raw, sent: bytes, expected: Expected) -> None:
    """Send frames; the answer is the one that is expected."""
    await client.send(sent)
    match expected:
        case Ends(code):
            assert not await client.lives()
            assert [code] == [got for _, got in client.goaways]
        case Resets(code, stream):
            assert await client.until(lambda: stream in client.resets)
            assert client.resets[stream] == code
            assert await client.lives()
        case Answers(status, stream):
            assert await client.answer(stream) == status
            assert await client.lives()
        case Lives():
            assert await client.lives()
            assert client.goaways == []


@pytest.mark.parametrize("case", CASES, ids=[f"{case.section} {case.name}" for case in CASES])
async def test_frames_are_taken_as_the_rfc_says(case: Case, certificate: tuple[Path, Path] | None) -> None:
    async with transport(Slow(), certificate) as where, await where.connect() as healthy:
        await healthy.begin()
        assert await healthy.get(1) == 200
        async with await where.connect() as client:
            await takes_case(await client.begin(), case.sent, case.expected)
        assert await healthy.get(3) == 200
        assert healthy.goaways == []


@pytest.mark.parametrize(
    "begins",
    [PREFACE[:-6] + b"XX\r\n\r\n", PREFACE + headers(), PREFACE + frame(PING, 0, 0, bytes(8))],
    ids=["another preface", "a request before the settings", "a PING before the settings"],
)
async def test_connection_begins_with_preface_and_settings(
    begins: bytes, certificate: tuple[Path, Path] | None
) -> None:
    async with transport(Slow(), certificate) as where, await where.connect() as client:
        await client.send(begins)
        assert not await client.lives()
        assert [code for _, code in client.goaways] == [ErrorCodes.PROTOCOL_ERROR]


async def test_settings_are_acknowledged(certificate: tuple[Path, Path] | None) -> None:
    async with transport(Slow(), certificate) as where, await where.connect() as client:
        await client.begin((4, 100))
        await client.send(settings((1, 0)) + settings((5, 16_384)))
        assert await client.lives()
        assert sum(1 for got in client.seen if got.kind == SETTINGS and got.flags & ACK) == 3


def test_no_case_is_lost() -> None:
    page = (ROOT / "docs" / "discussion" / "hypercorn.md").read_text()
    for number in (
        f"{len(CASES)} cases",
        f"{len(FRAMES)} cases",
        f"{len(HTTP)} of messages",
        f"{len(HPACK)} of header",
    ):
        assert number in page
    assert len({(case.section, case.name) for case in CASES}) == len(CASES)
