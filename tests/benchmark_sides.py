"""Runs one side of a benchmark with little work, in a forked process."""

from __future__ import annotations

import importlib
import multiprocessing
import multiprocessing.context
import os
import signal
import traceback
from contextlib import suppress
from multiprocessing.connection import Connection

import pytest

from benchmarks.harness import Timing, Workload

#: The workloads whose sides are whole servers.
SOCKETS = ("p7_echo", "p8_idle", "p9_broadcast", "p10_visit", "p11_http", "p12_two_processes")

#: Modules that most sides import, and that need no settings. The process that forks the sides imports them once.
PRELOADED = (
    "benchmarks.__main__",
    "django.contrib.sessions.backends.db",
    "django.core.management",
    "trio_channels.generic.websocket",
    "trio_channels.server",
    "trio_channels.layers.redis",
    "channels.generic.websocket",
)


def over_sockets(workload: Workload) -> bool:
    """Whether the sides of a workload are whole servers."""
    return workload.name in SOCKETS


def is_ours(side: str) -> bool:
    """Whether a side over sockets needs no other package, and is not the same as another with more clients."""
    return side.startswith(("ours", "floor", "handlers", "broadcast")) and not side.endswith(("-500", "-5000"))


def forking() -> multiprocessing.context.ForkServerContext:
    """Processes that are forked from one which has imported :data:`PRELOADED`, as that takes long."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(PRELOADED))
    return context


def _try(module: str, side: str, results: Connection) -> None:
    found = importlib.import_module(f"benchmarks.{module}").WORKLOAD.sides[side]
    try:
        results.send((found.trial or found.run)(10))
    except BaseException:
        results.send(traceback.format_exc())


def try_side(workload: Workload, side: str, fork: multiprocessing.context.ForkServerContext) -> None:
    """Run a side, and check that it has done its work; skips one whose packages are not installed."""
    if missing := workload.sides[side].not_installed:
        pytest.skip(f"not installed: {', '.join(missing)}")
    results, theirs = fork.Pipe(duplex=False)
    process = fork.Process(target=_try, args=(workload.name, side, theirs))
    process.start()
    theirs.close()
    try:
        assert results.poll(120), "it is stuck"
        timing = results.recv()
    finally:
        if process.is_alive() and process.pid is not None:
            with suppress(ProcessLookupError):  # it ends by itself just now
                os.kill(process.pid, signal.SIGINT)  # as Ctrl-C does: then a side ends its servers
        process.join(30)
        process.kill()
        results.close()
    assert isinstance(timing, Timing), timing
    assert timing.operations > 0
    assert timing.seconds > 0
