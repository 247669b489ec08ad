"""The unmodified client ``phoenix`` from npm, and its scenarios in the tests."""

from __future__ import annotations

import re
from pathlib import Path

from ..clients.node import phoenix

__all__ = ["OF_WEBSOCKETS", "SCENARIOS", "SCRIPT", "phoenix"]

#: The module of the scenarios, for Node and browsers.
SCRIPT = Path(__file__).with_name("phoenix_scenarios.mjs")
SCENARIOS = re.findall(r"^  async (\w+)\(\)", SCRIPT.read_text(), re.MULTILINE)
#: Scenarios of WebSockets only: a client sends no heartbeats by long-polling; the fallback begins with a WebSocket.
OF_WEBSOCKETS = {"heartbeats", "fallback"}
