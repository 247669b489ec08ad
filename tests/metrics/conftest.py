"""Each test begins without a recorder."""

from __future__ import annotations

import pytest

from trio_channels._metrics import recording

from ..layers.conftest import redis_server  # noqa: F401 - a fixture


@pytest.fixture(autouse=True)
def nothing_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recording, "recorder", None)
