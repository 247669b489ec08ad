"""On macOS and Windows the package can be imported and serves; features that need POSIX say so when they are used.

``hidden.py`` hides the features that these systems lack. The tests do not show that the rest works there as here.
"""

from __future__ import annotations

import signal

import pytest
import trio

from ..integration.server.conftest import Server
from ..process import program

SYSTEMS = ("darwin", "win32")
HIDDEN = ("-m", "tests.other_systems.hidden")
SERVE = ("serve", "tests.other_systems.application:application", "--bind=127.0.0.1:0")
DJANGO = ("serve", "tests.runner.application:application", "--bind=127.0.0.1:0")


@pytest.mark.parametrize("system", SYSTEMS)
async def test_every_module_can_be_imported(system: str) -> None:
    async with program(*HIDDEN, system, "imports", DJANGO_SETTINGS_MODULE="tests.runner.settings") as child:
        assert await child.ends() == 0, child.text
        assert f"modules on {system}" in child.text


@pytest.mark.parametrize("system", SYSTEMS)
async def test_native_application_is_served(system: str) -> None:
    async with program(*HIDDEN, system, *SERVE) as child:
        server = Server(await child.port())
        async with server.websocket("/") as ada, server.websocket("/") as tom:
            for text in ("one", "two"):
                await ada.send_message(text)
                heard = [await client.get_message() for client in (ada, tom)]
                assert heard == [f"{text} by trio-channels"] * 2
            # One client leaves without a close frame.
            await tom._stream.aclose()
            await ada.send_message("three")
            assert await ada.get_message() == "three by trio-channels"
        child.process.send_signal(signal.SIGINT)
        assert await child.ends() == 0, child.text
        assert "Traceback" not in child.text


@pytest.mark.parametrize("system", SYSTEMS)
async def test_django_is_served(system: str) -> None:
    async with program(*HIDDEN, system, *DJANGO, DJANGO_SETTINGS_MODULE="tests.runner.settings") as child:
        server = Server(await child.port())
        answer = await server.request("GET", "/about/")
        assert (answer.status, answer.body) == (200, b"127.0.0.1 http localhost")
        child.process.send_signal(signal.SIGINT)
        assert await child.ends() == 0, child.text


@pytest.mark.parametrize(
    ("options", "code", "says"),
    [
        (["--workers=2"], 2, "several processes (workers = 2) need Linux, macOS or another POSIX system; use 1 here"),
        (
            ["--bind=unix:no.sock"],
            3,
            "cannot listen on unix:no.sock: this system has no unix sockets",
        ),
    ],
    ids=["workers", "unix socket"],
)
async def test_use_of_posix_is_refused(options: list[str], code: int, says: str) -> None:
    with trio.fail_after(100):
        async with program(*HIDDEN, "win32", *SERVE[:2], *options) as child:
            assert await child.ends() == code, child.text
            assert says in " ".join(child.text.split())
            assert "Traceback" not in child.text
