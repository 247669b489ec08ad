"""The systemd unit of the documentation: systemd takes it, and restarts the server when another start can help."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable
from configparser import ConfigParser
from pathlib import Path

import pytest

from ..process import ROOT, Program
from .serving import APPLICATION, serving

PAGE = (ROOT / "docs" / "how-to" / "deploy.md").read_text()
UNIT = re.findall(r"```ini\n(\[Unit\].*?)```", PAGE, re.DOTALL)[0]
ANALYZE = shutil.which("systemd-analyze")


@pytest.mark.skipif(ANALYZE is None, reason="systemd-analyze is not installed")
def test_systemd_takes_the_unit(tmp_path: Path) -> None:
    unit = tmp_path / "mysite.service"
    # systemd looks whether the command exists.
    unit.write_text(UNIT.replace("/srv/mysite/venv/bin/trio-channels", sys.executable))
    done = subprocess.run([str(ANALYZE), "verify", unit], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_group_of_the_socket_is_that_of_the_proxy() -> None:
    """Otherwise nginx, which runs as www-data, cannot open a socket with this umask."""
    assert "\nGroup=www-data\n" in UNIT
    assert "umask = 0o007" in PAGE
    template = ROOT / "trio_channels" / "new" / "template" / "deploy"
    assert any("\nGroup=www-data\n" in file.read_text() for file in template.iterdir())


def restarts(status: int) -> bool:
    """Whether systemd starts the service again after this end, as systemd.service(5) has it; -9 is SIGKILL."""
    parser = ConfigParser(interpolation=None)
    parser.optionxform = str  # type: ignore[assignment]
    parser.read_string(UNIT)
    service = parser["Service"]
    assert service["Restart"] == "on-failure"
    assert parser["Unit"]["StartLimitIntervalSec"] == "0"  # it does not give up
    clean = {0, -signal.SIGHUP, -signal.SIGINT, -signal.SIGTERM, -signal.SIGPIPE}
    return status not in clean | {int(code) for code in service["RestartPreventExitStatus"].split()}


async def serves(process: Program) -> None:
    await process.said("Running on")


async def is_told(process: Program) -> None:
    await serves(process)
    process.process.send_signal(signal.SIGTERM)


async def is_killed(process: Program) -> None:
    await serves(process)
    process.process.kill()


async def crashes(process: Program) -> None:
    await serves(process)
    os.kill(process.process.pid, signal.SIGUSR1)


async def ends_by_itself(process: Program) -> None:
    """It cannot start."""


#: The arguments, the application, the event after the start, the exit status, and whether systemd restarts it.
ENDS: dict[str, tuple[tuple[str, ...], str, Callable[[Program], Awaitable[None]], int, bool]] = {
    "stop": ((), APPLICATION, is_told, 0, False),
    "killed": ((), APPLICATION, is_killed, -signal.SIGKILL, True),
    "crash in the lifespan": ((), "tests.runner.application:crashing", crashes, 1, True),
    "wrong option": (("--wrong",), APPLICATION, ends_by_itself, 2, False),
    "no such application": ((), "tests.runner.application:nothing", ends_by_itself, 3, False),
    "start refused": ((), "tests.runner.application:fails", ends_by_itself, 3, False),
    "start refused, two": (("--workers=2",), "tests.runner.application:fails", ends_by_itself, 3, False),
}


@pytest.mark.faults
@pytest.mark.parametrize("end", ENDS)
async def test_systemd_restarts_what_it_can_help(end: str) -> None:
    arguments, app, happens, status, again = ENDS[end]
    async with serving(*arguments, app=app) as process:
        await happens(process)
        assert await process.ends() == status, process.text
    assert restarts(status) is again
