"""The client ``phoenix`` from npm, as it is, and what it does in the tests."""

from __future__ import annotations

import re
from pathlib import Path

from ..clients.node import phoenix

__all__ = ["OF_WEBSOCKETS", "SCENARIOS", "SCRIPT", "phoenix"]

#: The module of the scenarios, for Node and browsers.
SCRIPT = Path(__file__).with_name("phoenix_scenarios.mjs")
SCENARIOS = re.findall(r"^  async (\w+)\(\)", SCRIPT.read_text(), re.MULTILINE)
#: Those of WebSockets only: by long-polling the client sends no heartbeats, and the fallback begins with a WebSocket.
OF_WEBSOCKETS = {"heartbeats", "fallback"}
