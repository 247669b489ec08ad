"""The pytest plugin for tests that are written for Channels: ``pytest -p trio_channels.compat.pytest_plugin``.

``channels`` imports as this package, and each new loop of asyncio brings a Trio run with it. So tests of pytest-asyncio
and :class:`unittest.IsolatedAsyncioTestCase` run as they are: their communicators, consumers and layers are ours.
"""

from __future__ import annotations

import pytest

from . import install
from .loops import use_for_all


def pytest_configure(config: pytest.Config) -> None:  # noqa: ARG001
    """Install the alias, before Django's settings and any conftest are imported."""
    use_for_all()


install(shadow=True)  # the plugin was asked for by name
