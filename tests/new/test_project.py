"""The project that ``trio-channels new`` makes: its own tests pass, it is served, and is ready for production."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import trio

from trio_channels.new import make_project

from ..integration.server.conftest import Server
from ..postgres import PostgresServer
from ..process import ROOT, program
from ..redis_server import RedisServer, needs_redis
from ..runner.serving import close_code

pytestmark = pytest.mark.slow
#: The settings of production that .env.example names; and a Redis, for several processes.
PRODUCTION = {
    "DJANGO_SECRET_KEY": "a-long-key-of-the-tests-that-nobody-guesses-0123456789-abcdef",
    "DJANGO_ALLOWED_HOSTS": "chat.example.com",
    "REDIS_URL": "redis://localhost",
}
#: Variables of this test run that the project would read.
FOREIGN = re.compile(r"DJANGO_|PYTEST_|DATABASE_URL|REDIS_URL|TRUSTED_PROXIES")


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in filter(FOREIGN.match, list(os.environ)):
        monkeypatch.delenv(name)
    return make_project("newsite", tmp_path / "newsite")


@pytest.fixture
def redis() -> Iterator[RedisServer]:
    server = RedisServer()
    server.start()
    yield server
    server.close()


def python(project: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run Python in the project."""
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=project,
        env=os.environ | {"PYTHONPATH": str(ROOT)} | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )


def passed(done: subprocess.CompletedProcess[str]) -> int:
    """The number of tests that have passed."""
    assert done.returncode == 0, done.stdout
    return int(re.findall(r"^(\d+) passed in", done.stdout, re.MULTILINE)[0])


def test_its_tests_pass(project: Path) -> None:
    assert passed(python(project, "-m", "pytest", "-q")) >= 20
    assert "No changes detected" in python(project, "manage.py", "makemigrations", "--check").stdout


@needs_redis
def test_its_tests_pass_on_postgresql_and_redis(project: Path, postgres: PostgresServer, redis: RedisServer) -> None:
    database = {"DATABASE_URL": f"postgresql://postgres@/newsite?host={postgres.settings('')['HOST']}"}
    assert passed(python(project, "-m", "pytest", "-q", **database, REDIS_URL=redis.url)) >= 20
    unreachable = python(project, "-m", "pytest", "-q", "-x", **database, REDIS_URL="redis://127.0.0.1:1")
    assert unreachable.returncode == 1  # the tests use the Redis of REDIS_URL
    assert postgres.execute("SELECT datname FROM pg_database WHERE datname LIKE '%%newsite'") == []


def test_checks_of_production_find_nothing(project: Path) -> None:
    done = python(project, "manage.py", "check", "--deploy", "--fail-level", "WARNING", **PRODUCTION)
    assert (done.returncode, done.stdout.splitlines()[0]) == (
        0,
        "System check identified no issues (2 silenced).",
    ), done.stdout


def test_production_needs_a_secret_key(project: Path) -> None:
    done = python(project, "manage.py", "check", DJANGO_DEBUG="0")
    assert done.returncode == 1
    assert "set DJANGO_SECRET_KEY; without it the site runs in development only" in done.stdout


async def test_visitors_sign_up_and_chat(project: Path) -> None:
    await trio.to_thread.run_sync(lambda: python(project, "manage.py", "migrate"))
    serve = ("-m", "trio_channels", "serve", "newsite.asgi:application", "--bind", "127.0.0.1:0")
    async with program(*serve, cwd=project) as server:
        port = await server.port()
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=60) as browser:
            assert (await browser.get("/healthz")).json()["status"] == "ok"
            await browser.get("/sign-up/")
            password = "correct horse battery"
            form = {"username": "ada", "password1": password, "password2": password}
            await browser.post("/sign-up/", data=form | {"csrfmiddlewaretoken": browser.cookies["csrftoken"]})
            assert 'data-room="lobby"' in (await browser.get("/rooms/lobby/")).text
            headers = [
                (b"Origin", f"http://127.0.0.1:{port}".encode()),
                (b"Cookie", f"sessionid={browser.cookies['sessionid']}".encode()),
            ]
            with trio.fail_after(60):
                async with Server(port).websocket("/ws/rooms/lobby/", extra_headers=headers) as page:
                    assert json.loads(await page.get_message()) == {"messages": []}
                    await page.send_message('{"text": "hello"}')
                    [message] = json.loads(await page.get_message())["messages"]
                    assert (message["who"], message["text"]) == ("ada", "hello")
                    await browser.post("/logout/", data={"csrfmiddlewaretoken": browser.cookies["csrftoken"]})
                    assert await close_code(page) == 1008  # after 1008, the page asks for a login
        server.process.send_signal(signal.SIGTERM)
        assert await server.ends() == 0
