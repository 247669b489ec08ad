"""The table through ``topics.js``, in Node; see ``topics.mjs``."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from ..server.clients import OURS, serving
from .application import make_application
from .node import run_script
from .table import CASES

pytestmark = [
    pytest.mark.clients,
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("node") is None, reason="needs node, for the client topics.js"),
]

SCRIPT = Path(__file__).with_name("topics.mjs")


@pytest.mark.parametrize("name", CASES)
async def test_case(name: str) -> None:
    async with serving(OURS, make_application()) as server:
        await run_script(SCRIPT, server.port, name)


@pytest.mark.parametrize("name", CASES)
async def test_case_over_server_sent_events(name: str) -> None:
    async with serving(OURS, make_application()) as server:
        await run_script(SCRIPT, server.port, name, "sse")
