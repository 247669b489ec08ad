"""What the client ``phoenix`` from npm has beside the cases of ``tests/clients``; see ``phoenix.mjs``."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ..clients.application import make_application
from ..clients.node import phoenix, run_script
from ..server.clients import OURS, serving

__all__ = ["phoenix"]

pytestmark = [pytest.mark.clients, pytest.mark.slow]

SCRIPT = Path(__file__).with_name("phoenix.mjs")
SCENARIOS = re.findall(r"^  async (\w+)\(\)", SCRIPT.read_text(), re.MULTILINE)


@pytest.mark.parametrize("scenario", SCENARIOS)
async def test_client_of_npm(scenario: str, phoenix: Path) -> None:
    async with serving(OURS, make_application()) as server:
        await run_script(SCRIPT, phoenix, server.port, scenario)


def test_every_scenario_is_run() -> None:
    assert len(SCENARIOS) == 7
