"""Every test module here is a project: its URLs are in it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from django.core import signals
from django.test import override_settings

from .common import NEUTRAL, Signals


@pytest.fixture(autouse=True)
def project(request: pytest.FixtureRequest) -> Iterator[None]:
    with override_settings(ROOT_URLCONF=request.module.__name__, MIDDLEWARE=[], TRIO_CHANNELS=NEUTRAL):
        yield


@pytest.fixture(autouse=True)
def sent_signals(project: None) -> Iterator[Signals]:
    """Every test here is also a test of this: each request is started and finished once."""
    seen = Signals()
    signals.request_started.connect(seen.started)
    signals.request_finished.connect(seen.finished)
    yield seen
    signals.request_started.disconnect(seen.started)
    signals.request_finished.disconnect(seen.finished)
    assert seen.sent.count("started") == seen.sent.count("finished")
