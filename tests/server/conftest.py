"""A clock that need not be waited for, and a certificate. A test that hangs is ended by the pytest plugin."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio.testing

from ..certificate import make_certificate


@pytest.fixture
def clock() -> trio.testing.MockClock:
    """Jumps when nothing has happened for a moment: bytes in a socket need one on a machine with much to do."""
    return trio.testing.MockClock(autojump_threshold=0.05)


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return make_certificate(tmp_path_factory.mktemp("certificate"))
