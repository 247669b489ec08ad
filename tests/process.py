"""Programs that tests start: their output and their exit codes."""

from __future__ import annotations

import os
import re
import resource
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import trio

ROOT = Path(__file__).resolve().parents[1]

#: Seconds after which something has gone wrong, on a busy machine too; no test is about time.
SAFETY = 200.0


class Program:
    """A running program, with its output to stdout and stderr so far."""

    def __init__(self, process: trio.Process) -> None:
        self.process = process
        self.text = ""
        self._ended = False
        self._more = trio.lowlevel.ParkingLot()

    async def _read(self) -> None:
        assert self.process.stdout is not None
        async with self.process.stdout as stream:
            async for data in stream:
                self.text += data.decode("utf-8", "replace")
                self._more.unpark_all()
        self._ended = True
        self._more.unpark_all()

    async def said(self, pattern: str, times: int = 1) -> list[str]:
        """Wait until the output has the pattern `times` times; returns the first group of each match."""
        while len(found := re.findall(pattern, self.text)) < times:
            if self._ended:
                raise AssertionError(f"the program ended without {pattern!r}:\n{self.text}")
            await self._more.park()
        return found

    async def port(self) -> int:
        """The port on which the program serves."""
        return int((await self.said(r"Running on https?://\S+:(\d+) "))[0])

    def memory(self, what: str = "VmHWM") -> int:
        """Resident bytes of the process, at their highest so far or (VmRSS) now."""
        return memory_of(self.process.pid, what)

    async def ends(self) -> int:
        """Wait until the program, and every process that it has started, has ended; returns the program's exit code."""
        while not self._ended:
            await self._more.park()
        return await self.process.wait()


@asynccontextmanager
async def program(*arguments: str, cwd: Path = ROOT, **environment: str) -> AsyncIterator[Program]:
    """``python *arguments`` in a folder, killed at the end of the block if it still runs, or after SAFETY."""
    process = await trio.lowlevel.open_process(
        [sys.executable, *arguments],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        # A process group of its own: the end of the block kills every process in it.
        start_new_session=True,
    )
    started = Program(process)
    with trio.fail_after(SAFETY):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(started._read)
            try:
                yield started
            finally:
                with trio.CancelScope(shield=True):
                    end_group(process.pid)
                    await process.wait()
                nursery.cancel_scope.cancel()


def memory_of(pid: int, what: str) -> int:
    """A line of the process' ``status`` that is about memory, in bytes."""
    status = Path(f"/proc/{pid}/status").read_text()
    return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith(what))


def allow_descriptors(count: int) -> None:
    """Raise the limit of open files, of this process and of those that it starts, to `count` at least."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    unlimited = resource.RLIM_INFINITY
    assert hard == unlimited or hard >= count, f"raise the hard limit of open files (ulimit -Hn) to {count}"
    if soft != unlimited and soft < count:
        resource.setrlimit(resource.RLIMIT_NOFILE, (count, hard))


def end_group(pid: int) -> None:
    """Kill a process that leads a group, and all others in it."""
    try:
        os.killpg(pid, 9)
    except ProcessLookupError:
        pass  # all have ended
