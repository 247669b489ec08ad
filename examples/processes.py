"""An example's processes: started, started again when they end, and stopped together by Ctrl-C.

``run(("The chat is on http://127.0.0.1:8000/", ["trio_channels", "serve", "mysite.asgi:application"]), ...)``
"""

from __future__ import annotations

import argparse
import signal
import socket
import sys
from collections.abc import Sequence

import trio

HOST = "127.0.0.1"
#: Seconds that a process has to end in order, pages said goodbye to and work finished, before it is killed.
GRACE = 10
#: Seconds before a process that has ended is started again.
PAUSE = 0.5

#: What to print when it starts, and the module to run, with its arguments.
Command = tuple[str, Sequence[str]]


def run(*commands: Command) -> None:
    """Run Python modules, each as a process of its own, until Ctrl-C or SIGTERM."""
    trio.run(_until_stopped, commands)


def server(port: int) -> list[str]:
    """The command that serves the example's site."""
    return ["trio_channels", "serve", "mysite.asgi:application", "--bind", f"{HOST}:{port}"]


def port_number(text: str) -> int:
    """An argument of a command line as a port."""
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= 65535):
        raise argparse.ArgumentTypeError(f"a port is a number from 1 to 65535; got {text!r}")
    return int(text)


def refuse_taken_port(port: int) -> None:
    """Say so in one sentence, before anything is started."""
    with socket.socket() as probe:
        # As the server does it: a port that was closed a moment ago is free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            other = port % 65535 + 1
            raise SystemExit(
                f"Cannot serve on port {port}: {error.strerror}. Give another as the argument, such as {other}."
            ) from None


def say(text: str) -> None:
    """Print at once, also into a file."""
    print(text, flush=True)  # noqa: T201


async def _until_stopped(commands: Sequence[Command]) -> None:
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with trio.open_nursery() as nursery:
            for name, arguments in commands:
                nursery.start_soon(_keep_running, name, arguments)
            say("Ctrl-C stops everything.")
            async for _ in signals:
                nursery.cancel_scope.cancel()
    say("Stopped.")


async def _keep_running(name: str, arguments: Sequence[str]) -> None:
    """Run a process, for ever. A cancellation stops it, and waits for it."""

    async def run_once(task_status: trio.TaskStatus[trio.Process]) -> None:
        # A session of its own: Ctrl-C is for the parent, which stops the processes, and Redis after them.
        await trio.run_process(
            [sys.executable, "-m", *arguments],
            check=False,
            start_new_session=True,
            deliver_cancel=_stop,
            task_status=task_status,
        )

    while True:
        async with trio.open_nursery() as nursery:
            process = await nursery.start(run_once)
            say(f"{name}  (process {process.pid})")
        say(f"Process {process.pid} has ended with code {process.returncode}; it is started again.")
        await trio.sleep(PAUSE)


async def _stop(process: trio.Process) -> None:
    """Ask it to end; as by ``kill -9`` if that does not help."""
    process.terminate()
    await trio.sleep(GRACE)
    process.kill()
