"""Starts a server and the clients as processes, and measures the server: its processor time and its memory."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from ..harness import ROOT, Side, Timing
from . import project
from .descriptors import raise_limit

HERE = Path(__file__).parent
#: Seconds within which a server must listen.
START = 60
#: The folder in which `npm install ws` was called.
NODE_MODULES = "BENCHMARK_NODE_MODULES"


@dataclass(frozen=True)
class Server:
    """How to start a server.

    Args:
        command: its arguments; ``{port}`` stands for the port.
        needs: the modules that it imports, and that may not be installed.
        node: whether it is a program for Node.
    """

    command: tuple[str, ...]
    needs: tuple[str, ...] = ()
    node: bool = False

    @property
    def missing(self) -> list[str]:
        """The names of the programs and modules that are not there."""
        if self.node:
            folder = os.environ.get(NODE_MODULES)
            there = folder is not None and Path(folder, "ws").exists() and shutil.which("node") is not None
            return [] if there else [f"node, and ws in ${NODE_MODULES}"]
        return [name for name in ("psutil", *self.needs) if importlib.util.find_spec(name) is None]


def _python(*arguments: str) -> tuple[str, ...]:
    return (sys.executable, "-m", *arguments)


_APP = "benchmarks.sockets.channels_app"
_UVICORN = _python(
    *("uvicorn", "--port", "{port}", "--log-level", "warning", "--no-access-log", "--backlog", "1000"),
    *("--lifespan", "off"),
)
_CHANNELS = ("channels",)

SERVERS = {
    "ours": Server(_python("benchmarks.sockets.ours", "{port}")),
    "ours-hypercorn": Server(_python("benchmarks.sockets.ours", "{port}", "--bare")),
    "channels-uvicorn": Server((*_UVICORN, f"{_APP}:application"), (*_CHANNELS, "uvicorn", "uvloop")),
    "channels-granian": Server(
        _python(
            *("granian", "--interface", "asginl", "--port", "{port}", "--log-level", "warning", "--backlog", "1000"),
            f"{_APP}:application",
        ),
        (*_CHANNELS, "granian"),
    ),
    "channels-daphne": Server(
        _python("daphne", "-b", "127.0.0.1", "-p", "{port}", "-v", "0", f"{_APP}:application"), (*_CHANNELS, "daphne")
    ),
    "channels-hypercorn": Server(
        _python(
            *("hypercorn", "-k", "uvloop", "-b", "127.0.0.1:{port}", "--log-level", "error", "--backlog", "1000"),
            f"{_APP}:application",
        ),
        (*_CHANNELS, "uvloop"),
    ),
    "ws-node": Server(("node", str(HERE / "ws.cjs"), "{port}"), node=True),
    "websockets-uvloop": Server(_python("benchmarks.sockets.websockets_server", "{port}"), ("websockets", "uvloop")),
    "floor": Server(_python("benchmarks.sockets.floor", "{port}")),
    "django-uvicorn": Server((*_UVICORN, f"{_APP}:http"), (*_CHANNELS, "uvicorn", "uvloop")),
    "django-gunicorn": Server(
        _python(
            *("gunicorn", "-b", "127.0.0.1:{port}", "--threads", "10", "--log-level", "error", "--keep-alive", "60"),
            f"{_APP}:wsgi",
        ),
        (*_CHANNELS, "gunicorn"),
    ),
}


class Running:
    """A server that runs, or several that share a channel layer.

    Attributes:
        ports: of each.
        cookie: of the session of the user.
    """

    def __init__(self, processes: list[subprocess.Popen[bytes]], ports: list[int], cookie: str) -> None:
        import psutil

        self._processes = [psutil.Process(process.pid) for process in processes]
        self.ports = ports
        self.cookie = cookie

    @property
    def port(self) -> int:
        return self.ports[0]

    def _all(self) -> Iterator[Any]:
        for process in self._processes:
            yield process
            yield from process.children(recursive=True)

    def cpu(self) -> float:
        """The processor time of the servers, in seconds."""
        return sum(times.user + times.system for times in (process.cpu_times() for process in self._all()))

    def memory(self) -> float:
        """The resident memory of the servers, in KiB."""
        return float(sum(process.memory_info().rss for process in self._all()) / 1024)

    @contextmanager
    def clients(self) -> Iterator[Callable[..., Any]]:
        """A process of clients, as a function that runs one of their commands and returns its answer."""
        command = [sys.executable, "-m", "benchmarks.sockets.clients"]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        with subprocess.Popen(command, cwd=ROOT, text=True, **pipes) as process:

            def run(name: str, *arguments: object) -> Any:
                if process.stdin is None or process.stdout is None:
                    raise RuntimeError("expected pipes; got none")
                process.stdin.write(json.dumps([name, *arguments]) + "\n")
                process.stdin.flush()
                if not (line := process.stdout.readline()):
                    raise RuntimeError(f"the clients failed at {name} {arguments!r}")
                return json.loads(line)

            try:
                yield run
            finally:
                process.kill()

    def measure(self, operations: int, work: Callable[[], object], **more: float) -> Timing:
        """The time and the processor time of the servers while `work` runs."""
        cpu, wall = self.cpu(), time.perf_counter()
        work()
        wall, cpu = time.perf_counter() - wall, self.cpu() - cpu
        return Timing(operations, wall, cpu, more)


#: Work with a server and its clients, so many times.
Work = Callable[[Running, Callable[..., Any], int], Timing]


def side(name: str, work: Work, count: int, trial: Work | None = None) -> Side:
    """A side of a workload: a server by its name, and work with its clients; `count` and `trial` as for every side."""

    def run(times: int, work: Work = work) -> Timing:
        with running(name) as server, server.clients() as clients:
            return work(server, clients, times)

    small = None if trial is None else partial(run, work=trial)
    return Side(run, count, trial=small, missing=lambda: SERVERS[name].missing)


@contextmanager
def running(name: str, processes: int = 1, **environment: str) -> Iterator[Running]:
    """Start a server, with a database of its own, and wait until it listens; ends it."""
    server = SERVERS[name]
    raise_limit()
    with tempfile.TemporaryDirectory(prefix="trio-channels-benchmark-") as folder, ExitStack() as stack:
        variables = {**os.environ, **environment, project.FOLDER: folder}
        if server.node:
            variables["NODE_PATH"] = os.environ[NODE_MODULES]
        cookie = subprocess.run(
            [sys.executable, "-m", "benchmarks.sockets.database"],
            cwd=ROOT,
            env=variables,
            check=True,
            capture_output=True,
            text=True,
        ).stdout.strip()
        started, ports = [], []
        for _ in range(processes):
            port = _free_port()
            command = [argument.format(port=port) for argument in server.command]
            process = stack.enter_context(subprocess.Popen(command, cwd=ROOT, env=variables))
            stack.callback(_end, process)
            _wait_for(process, port)
            started.append(process)
            ports.append(port)
        yield Running(started, ports, cookie)


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def _wait_for(process: subprocess.Popen[bytes], port: int) -> None:
    end = time.monotonic() + START
    while time.monotonic() < end and process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise RuntimeError(f"expected a server on port {port} within {START} seconds; {process.args!r} does not listen")


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a server and its children, at once: it has no work any more."""
    import psutil

    for child in psutil.Process(process.pid).children(recursive=True) if process.poll() is None else ():
        child.kill()
    process.kill()
