"""Node, and the client ``phoenix`` from npm, which installs it when the tests run."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
import trio

from ..process import SAFETY

VERSION = "1.8.16"


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


def node() -> list[str]:
    """The command, with WebSockets: before version 22 they are an option."""
    version = subprocess.run(["node", "--version"], capture_output=True, text=True, check=True).stdout
    return ["node", *(["--experimental-websocket"] if int(version[1:].partition(".")[0]) < 22 else [])]


async def run_script(*arguments: object) -> None:
    """Run a script that writes ``passed`` at its end."""
    command = [*await trio.to_thread.run_sync(node), *map(str, arguments)]
    with trio.fail_after(SAFETY):
        done = await trio.run_process(command, capture_stdout=True, capture_stderr=True, check=False)
    assert (done.stdout.decode(), done.returncode) == ("passed\n", 0), done.stderr.decode()
