"""A clock that need not be waited for. A test that hangs is ended by the pytest plugin."""

from __future__ import annotations

import pytest
import trio.testing


@pytest.fixture
def clock() -> trio.testing.MockClock:
    """Jumps when nothing has happened for a moment: bytes in a socket need one on a machine with much to do."""
    return trio.testing.MockClock(autojump_threshold=0.05)
