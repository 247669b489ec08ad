"""The client ``phoenix`` from npm, unmodified, in Node, over WebSocket and long-polling. npm installs it.

``phoenix_scenarios.mjs`` has the scenarios.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import trio
from django.test import override_settings

from trio_channels.routing import ProtocolTypeRouter

from ..clients.node import run_script
from ..server.clients import OURS, serving
from .phoenix_client import OF_WEBSOCKETS, SCENARIOS, phoenix
from .phoenix_site import Lobby, applications

__all__ = ["phoenix"]  # a fixture

pytestmark = [pytest.mark.clients, pytest.mark.slow]

SCRIPT = Path(__file__).with_name("phoenix.mjs")
CASES = [
    *((scenario, "websocket") for scenario in SCENARIOS),
    *((scenario, "longpoll") for scenario in SCENARIOS if scenario not in OF_WEBSOCKETS),
]


@pytest.mark.parametrize(("scenario", "transport"), CASES)
async def test_client_of_npm(scenario: str, transport: str, phoenix: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Lobby, "gate", trio.Event())
    served = ProtocolTypeRouter(applications(["*"]))
    # A client that leaves says nothing over long-polling.
    with override_settings(TRIO_CHANNELS={"LONG_POLL_TIMEOUT": 3.0 if scenario == "presence" else 15.0}):
        async with serving(OURS, served) as server:
            await run_script(SCRIPT, phoenix, server.port, scenario, transport)


def test_every_scenario_is_run() -> None:
    assert len(SCENARIOS) > 15
    assert set(SCENARIOS) >= OF_WEBSOCKETS
