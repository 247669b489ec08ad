"""The processes of an example: each is restarted when it ends, and Ctrl-C stops all of them.

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
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)
#: Seconds that a process may take to close its pages and finish its work, before it is killed.
GRACE = 10
#: Seconds before a process that has ended is started again.
RESTART_DELAY = 0.5

#: The line to print at the start, and the module to run, with its arguments.
Command = tuple[str, Sequence[str]]


def run(*commands: Command) -> None:
    """Run each Python module in a process, until Ctrl-C or SIGTERM."""
    trio.run(_until_stopped, commands)


#: The signals that have come before :func:`run`.
_early: list[int] = []


def wait_with_signals() -> None:
    """Have :func:`run` end at once if SIGINT or SIGTERM has come before it. The second signal raises KeyboardInterrupt.

    An exception in the middle of a process' start would leave that process behind.
    """

    def note(number: int, _frame: object) -> None:
        _early.append(number)
        for each in STOP_SIGNALS:
            signal.signal(each, signal.default_int_handler)

    for each in STOP_SIGNALS:
        signal.signal(each, note)


def server(port: int) -> list[str]:
    """The command that serves the example's site."""
    return ["trio_channels", "serve", "mysite.asgi:application", "--bind", f"{HOST}:{port}"]


def port_number(text: str) -> int:
    """Convert an argument of the command line to a port."""
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= 65535):
        raise argparse.ArgumentTypeError(f"expected a port, a number from 1 to 65535; got {text!r}")
    return int(text)


def refuse_taken_port(port: int) -> None:
    """End the program with a sentence if the port is taken."""
    with socket.socket() as probe:
        # As the server does: a port that was just closed is free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            other = port % 65535 + 1
            raise SystemExit(
                f"Cannot serve on port {port}: {error.strerror}. Give another port as the argument, such as {other}."
            ) from None


def say(text: str) -> None:
    """Print without buffering."""
    print(text, flush=True)  # noqa: T201


async def _until_stopped(commands: Sequence[Command]) -> None:
    with trio.open_signal_receiver(*STOP_SIGNALS) as signals:
        async with trio.open_nursery() as nursery:
            for name, arguments in commands:
                nursery.start_soon(_keep_running, name, arguments)
            say("Ctrl-C stops everything.")
            if _early:
                nursery.cancel_scope.cancel()
            async for _ in signals:
                nursery.cancel_scope.cancel()
    say("Stopped.")


async def _keep_running(name: str, arguments: Sequence[str]) -> None:
    """Run a process, and restart it for ever. A cancellation stops it, and waits for its end."""

    async def run_once(task_status: trio.TaskStatus[trio.Process]) -> None:
        # In a session of its own, the process does not get Ctrl-C: the parent stops it, and Redis afterwards.
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
        say(f"Process {process.pid} ended with code {process.returncode}; starting it again.")
        await trio.sleep(RESTART_DELAY)


async def _stop(process: trio.Process) -> None:
    """Send SIGTERM, and after the grace SIGKILL."""
    process.terminate()
    await trio.sleep(GRACE)
    process.kill()
