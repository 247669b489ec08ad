"""The client ``phoenix`` from npm, as it is, and what it does in the tests."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

VERSION = "1.8.16"
#: The module of the scenarios, for Node and browsers.
SCRIPT = Path(__file__).with_name("phoenix_scenarios.mjs")
SCENARIOS = re.findall(r"^  async (\w+)\(\)", SCRIPT.read_text(), re.MULTILINE)
#: Those of WebSockets only: by long-polling the client sends no heartbeats, and the fallback begins with a WebSocket.
OF_WEBSOCKETS = {"heartbeats", "fallback"}


@pytest.fixture(scope="session")
def phoenix(request: pytest.FixtureRequest) -> Path:
    """The module of the client."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        pytest.skip("needs node and npm, for the client phoenix")
    assert request.config.cache is not None
    folder = request.config.cache.mkdir(f"phoenix-{VERSION}")
    module = folder / "node_modules" / "phoenix" / "priv" / "static" / "phoenix.mjs"
    if not module.exists():
        options = ["--no-audit", "--no-fund", "--ignore-scripts", "--prefix", str(folder)]
        done = subprocess.run(
            ["npm", "install", *options, f"phoenix@{VERSION}"], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
    return module
