"""phoenix-channels-python-client: a client of topics that nobody here wrote runs the cases that it has calls for."""

from __future__ import annotations

import sys

import pytest
import trio

from ..clients.application import make_application
from ..clients.table import CASES
from ..process import ROOT, SAFETY
from ..server.clients import OURS, serving

THOSE = (
    *("join", "join of an unknown topic", "replies in order", "error replies"),
    *("push that times out", "event to this client", "slow topic does not hold up others", "many topics"),
    *("crash and join again", "crash in the background", "leave", "end by the server"),
    *("heartbeats", "heartbeat without an answer", "reconnect after 1001", "several reconnects"),
)


@pytest.mark.parametrize("name", THOSE)
async def test_case(name: str) -> None:
    assert name in CASES
    async with serving(OURS, make_application()) as server:
        command = [sys.executable, "-m", "tests.packages.asyncio_client", str(server.port), name]
        with trio.fail_after(SAFETY):
            done = await trio.run_process(command, cwd=ROOT, capture_stdout=True, capture_stderr=True, check=False)
    assert (done.stdout.decode(), done.returncode) == ("passed\n", 0), done.stderr.decode()
