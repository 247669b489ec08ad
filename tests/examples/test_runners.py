"""The examples are started by documented commands, and a SIGTERM to their runner leaves nothing behind."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import sysconfig
import venv
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import trio

from ..integration.server.conftest import Server
from ..ports import free_port
from ..process import ROOT, Program, program
from ..redis_server import RedisServer, needs_redis

EXAMPLES = ROOT / "examples"
#: They need Pillow, which the environment of the fault tests has.
THUMBNAILS = (
    needs_redis,
    pytest.mark.faults,
    pytest.mark.skipif(find_spec("PIL") is None, reason="There is no Pillow: pip install pillow."),
)


class Mark:
    """Finds all processes that a runner has started, whoever their parent is: they have it in their environment.

    Redis overwrites its environment, with its title. It works in a temporary folder, and the mark's is the only place
    for these.
    """

    def __init__(self, folder: str) -> None:
        self._folder = folder  # a path that nobody else has
        self.variables = {"TMPDIR": folder}

    def processes(self) -> dict[int, str]:
        """Their names by number."""
        found = {}
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                place = (folder / "cwd").readlink()
                if self._folder.encode() in (folder / "environ").read_bytes() or place.is_relative_to(self._folder):
                    found[int(folder.name)] = (folder / "comm").read_text().strip()
            except OSError:
                pass  # it has ended, or is somebody else's
        return found


@asynccontextmanager
async def runner(tmp_path: Path, *arguments: str) -> AsyncIterator[tuple[Program, Mark]]:
    """A runner of an example, and the mark of all its processes; those that are left at the end are killed."""
    databases = {f"{name}_DATABASE": str(tmp_path / f"{name}.sqlite3") for name in ("BOARD", "CHAT")}
    data = databases | {"GALLERY_DATA": str(tmp_path)}
    with TemporaryDirectory() as folder:  # tmp_path is too long for a unix socket
        mark = Mark(folder)
        try:
            async with program(*arguments, **data, **mark.variables) as started:
                yield started, mark
        finally:
            for number in mark.processes():
                os.kill(number, signal.SIGKILL)


def nothing_is_left(mark: Mark, text: str, *ports: int) -> None:
    assert mark.processes() == {}, text
    for port in ports:
        with socket.socket() as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind(("127.0.0.1", port))


@pytest.mark.parametrize(
    ("script", "servers", "says"),
    [
        ("chat/serve.py", 1, "Running on"),
        ("board/serve.py", 1, "Running on"),
        pytest.param("chat/serve_redis.py", 2, "Running on", marks=needs_redis),
        pytest.param("thumbnails/serve.py", 1, "working on thumbnails|Running on", marks=THUMBNAILS),
    ],
)
async def test_sigterm_ends_all_processes(tmp_path: Path, script: str, servers: int, says: str) -> None:
    port = free_port(*range(1, servers))
    async with runner(tmp_path, str(EXAMPLES / script), str(port)) as (started, mark):
        await started.said(says, 1 + says.count("|") if servers == 1 else servers)
        assert len(mark.processes()) >= servers
        started.process.send_signal(signal.SIGTERM)
        assert await started.ends() == 0, started.text
        assert "Traceback" not in started.text
        nothing_is_left(mark, started.text, *range(port, port + servers))


@needs_redis
async def test_sigterm_before_it_serves_ends_redis(tmp_path: Path) -> None:
    async with runner(tmp_path, str(EXAMPLES / "chat/serve_redis.py"), str(free_port(1))) as (started, mark):
        while "redis-server" not in mark.processes().values():  # the migration has not begun
            await trio.lowlevel.checkpoint()
        started.process.send_signal(signal.SIGTERM)
        assert await started.ends() == 0, started.text
        nothing_is_left(mark, started.text)


@pytest.mark.slow
async def test_sigterm_to_nox_ends_the_chat(tmp_path: Path) -> None:
    environment = tmp_path / "environments" / "chat"
    make_environment(environment)
    port = free_port()
    command = ("-m", "nox", "--envdir", str(environment.parent), "-s", "chat", "--", str(port))
    async with runner(tmp_path, *command) as (started, mark):
        await started.said("Running on")
        started.process.send_signal(signal.SIGTERM)
        assert await started.ends() == 0, started.text
        nothing_is_left(mark, started.text, port)


def make_environment(folder: Path) -> None:
    """An environment as an earlier start of the chat has left it, so that nox installs nothing."""
    venv.create(folder, symlinks=True)
    packages = sysconfig.get_path("purelib", vars={"base": str(folder), "platbase": str(folder)})
    Path(packages, "tests.pth").write_text(f"{ROOT}\n{sysconfig.get_path('purelib')}\n")
    (folder / "made-for").write_text("\n".join(["-e", ".", (ROOT / "setup.cfg").read_text()]))


@pytest.fixture
def redis() -> Iterator[RedisServer]:
    server = RedisServer()
    try:
        server.start()
        yield server
    finally:
        server.close()


def documented(example: str) -> list[list[str]]:
    """The commands of the README that start the example without its script."""
    blocks = re.findall(r"```console\n(.*?)```", (EXAMPLES / example / "README.md").read_text(), re.DOTALL)
    (block,) = (block for block in blocks if "trio-channels serve" in block)
    return [line.removeprefix("$ ").split() for line in block.splitlines()]


@pytest.mark.parametrize(
    "example",
    [
        pytest.param("board", marks=(needs_redis, pytest.mark.slow)),
        pytest.param("chat", marks=needs_redis),
        pytest.param("thumbnails", marks=THUMBNAILS),
    ],
)
async def test_documented_commands_serve(example: str, tmp_path: Path, redis: RedisServer) -> None:
    folder = tmp_path / example
    shutil.copytree(EXAMPLES / example, folder, ignore=shutil.ignore_patterns("media", "*.sqlite3*"))
    options = {"cwd": folder, "GALLERY_REDIS": redis.url, "DJANGO_SETTINGS_MODULE": "mysite.settings"}
    *before, serve = documented(example)
    assert serve[:2] == ["trio-channels", "serve"]
    for _, *command in (command for command in before if command[0] == "python" and command[2] in ("migrate", "demo")):
        async with program(*command, **options) as preparation:
            assert await preparation.ends() == 0, preparation.text
    async with AsyncExitStack() as running:
        for _, *command in (command for command in before if "runworker" in command):
            worker = await running.enter_async_context(program(*command, **options))
            await worker.said("working on")
        command = ["-m", "trio_channels", *serve[1:], "--bind=127.0.0.1:0"]
        server = Server(await (await running.enter_async_context(program(*command, **options))).port())
        page = await server.request("GET", "/")
        assert (page.status, b"<h1" in page.body) == (200, True)
