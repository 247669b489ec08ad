"""The pytest plugin for tests that are written for Channels: ``pytest -p trio_channels.compat.pytest_plugin``.

``channels`` imports as this package, and each new loop of asyncio brings a Trio run with it. So tests of pytest-asyncio
and :class:`unittest.IsolatedAsyncioTestCase` run as they are: their communicators, consumers and layers are ours.
"""

from __future__ import annotations

import pytest

from . import install


def pytest_addoption(parser: pytest.Parser) -> None:  # noqa: ARG001
    """Install the alias. pytest calls this as soon as it has the plugin: before any settings and any conftest."""
    install(shadow=True)  # the plugin was asked for by name
    from .loops import use_for_all

    use_for_all()
