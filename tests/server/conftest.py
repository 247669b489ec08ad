"""A clock that need not be waited for, a certificate, and both ways of HTTP/1.1. The plugin ends a test that hangs."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio.testing

from trio_channels.server import http1

from ..certificate import make_certificate


@pytest.fixture
def clock() -> trio.testing.MockClock:
    """Jumps when nothing has happened for a moment: bytes in a socket need one on a machine with much to do."""
    return trio.testing.MockClock(autojump_threshold=0.05)


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return make_certificate(tmp_path_factory.mktemp("certificate"))


@pytest.fixture(params=["plain", "h11"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The way of plain exchanges of HTTP/1.1: they pass h11 by, or not."""
    name: str = request.param
    if name == "h11":
        monkeypatch.setattr(http1, "plain_request", lambda *_: None)
    return name
