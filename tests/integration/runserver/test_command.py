"""The command's options: its application, its server, its errors and the state of its process."""

from __future__ import annotations

import io
import logging
import os
import signal
import sys
import threading
from typing import Any
from unittest.mock import patch

import pytest
from django.contrib.staticfiles.handlers import StaticFilesHandler as WSGIStaticFilesHandler
from django.core.handlers.wsgi import WSGIHandler
from django.core.management import CommandError, call_command, get_commands
from django.core.management.commands.runserver import Command as RunserverCommand
from django.core.servers.basehttp import WSGIServer, run
from django.test import override_settings
from trio.testing import wait_all_tasks_blocked

from trio_channels._asgi.protocol import Receive, Scope, Send
from trio_channels.management._tracebacks import LOGGERS, ShortTracebacks
from trio_channels.management.commands.runserver import Command
from trio_channels.server import error_log
from trio_channels.server.development import DevelopmentServer
from trio_channels.staticfiles import StaticFilesHandler

WITH_FILES = {"INSTALLED_APPS": ["trio_channels", "django.contrib.staticfiles"], "STATIC_URL": "static/"}


async def application(scope: Scope, receive: Receive, send: Send) -> None:
    """The application that ``ASGI_APPLICATION`` names in these tests."""


def handler(*arguments: str, **settings: Any) -> tuple[Any, Any]:
    """The application that is served, and the class of its server."""
    command = Command()
    seen: list[Any] = []
    command.run = lambda **options: seen.append(command.get_handler(**options))  # type: ignore[method-assign]
    with override_settings(**{"ASGI_APPLICATION": f"{__name__}.application", "DEBUG": True} | settings):
        call_command(command, *arguments)
    return seen[0], command.server_cls


def test_application_of_the_settings_on_trio() -> None:
    assert handler() == (application, DevelopmentServer)


def test_its_static_files_before_it() -> None:
    served, _ = handler(**WITH_FILES)
    assert isinstance(served, StaticFilesHandler)
    assert served.application is application


@pytest.mark.parametrize(
    ("arguments", "debug", "static"),
    [((), True, True), (("--nostatic",), True, False), ((), False, False), (("--insecure",), False, True)],
)
def test_static_files_are_for_debug_or_insecure_and_can_be_left_out(
    arguments: tuple[str, ...], debug: bool, static: bool
) -> None:
    settings = WITH_FILES | {"DEBUG": debug, "ALLOWED_HOSTS": ["localhost"]}
    assert isinstance(handler(*arguments, **settings)[0], StaticFilesHandler) is static
    served, server = handler(*arguments, "--noasgi", **settings)
    assert isinstance(served, WSGIStaticFilesHandler) is static
    assert server is WSGIServer


def test_noasgi_needs_no_asgi_application() -> None:
    served, server = handler("--noasgi", ASGI_APPLICATION=None)
    assert isinstance(served, WSGIHandler)
    assert server is WSGIServer


def test_missing_asgi_application_is_said_at_once() -> None:
    with pytest.raises(CommandError, match="The setting ASGI_APPLICATION is missing"):
        handler(ASGI_APPLICATION=None)


def test_asgi_application_that_cannot_be_imported_is_said() -> None:
    with pytest.raises(CommandError, match=r"'no\.such\.application' cannot be imported: No module named 'no'"):
        handler(ASGI_APPLICATION="no.such.application")


def test_runserver_is_ours_if_listed_before_staticfiles() -> None:
    get_commands.cache_clear()
    with override_settings(**WITH_FILES):
        assert get_commands()["runserver"] == "trio_channels"
    get_commands.cache_clear()


@pytest.mark.parametrize(
    ("address", "ipv6", "url"),
    [
        ("127.0.0.1", False, "http://127.0.0.1:8000/"),
        ("0", False, "http://0.0.0.0:8000/"),
        ("::1", True, "http://[::1]:8000/"),
    ],
)
def test_address_is_said_as_a_browser_takes_it(address: str, ipv6: bool, url: str) -> None:
    command = Command(stdout=io.StringIO())
    command.server_cls, command.addr, command._raw_ipv6 = DevelopmentServer, address, ipv6
    command.on_bind(8000)
    assert f"development server on Trio at {url}\n" in command.stdout.getvalue()


def test_noasgi_leaves_the_address_to_django(monkeypatch: pytest.MonkeyPatch) -> None:
    ports: list[int] = []
    monkeypatch.setattr(RunserverCommand, "on_bind", lambda self, port: ports.append(port), raising=False)
    command = Command()
    command.server_cls = WSGIServer
    command.on_bind(8000)
    assert ports == [8000]


def test_asgi_application_that_is_no_path_is_said() -> None:
    with pytest.raises(CommandError, match=r"must be a path such as .*; got 'nodots'") as failure:
        handler(ASGI_APPLICATION="nodots")
    assert not hasattr(failure.value, "filename"), "there is no file to watch"


# -- the process that serves ------------------------------------------------------------------------------------------


async def fails(scope: Scope, receive: Receive, send: Send) -> None:
    """An application that does not start."""
    await receive()
    await send({"type": "lifespan.startup.failed", "message": "no database today"})


async def fails_to_end(scope: Scope, receive: Receive, send: Send) -> None:
    """An application that stops its server at once, and whose shutdown fails."""
    await receive()
    await send({"type": "lifespan.startup.complete"})
    await wait_all_tasks_blocked()
    os.kill(os.getpid(), signal.SIGINT)
    await receive()
    await send({"type": "lifespan.shutdown.failed", "message": "the queue is not empty"})


class Process:
    """The state of a process that serves: how it shows errors, and where its log goes."""

    def __init__(self) -> None:
        self.hook = sys.excepthook
        self.filters = [list(logging.getLogger(name).filters) for name in LOGGERS]
        self.handlers = list(logging.getLogger("trio_channels").handlers)

    def __eq__(self, other: object) -> bool:
        return vars(self) == vars(other)

    __hash__ = None  # type: ignore[assignment]


@pytest.fixture
def own_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Undo the command's changes to its process."""
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    monkeypatch.setattr(threading, "excepthook", threading.excepthook)
    monkeypatch.setattr(error_log, "_levels", {})
    for name in {*LOGGERS, "trio_channels", "trio_channels.runner"}:
        logger = logging.getLogger(name)
        monkeypatch.setattr(logger, "level", logger.level)
        monkeypatch.setattr(logger, "filters", list(logger.filters))
        monkeypatch.setattr(logger, "handlers", [])


def serve(*arguments: str, run: Any = None, **settings: Any) -> Process:
    """Run the command in this process; returns the state of the process while it served."""
    seen: list[Process] = []

    def note(*args: Any, **options: Any) -> None:
        seen.append(Process())
        if run is not None:
            run(*args, **options)

    command = Command(stdout=io.StringIO())
    command.check_migrations = lambda: None  # type: ignore[method-assign] # these tests have no database
    made = {"ASGI_APPLICATION": f"{__name__}.application", "DEBUG": True} | settings
    with (
        override_settings(**made),
        patch("django.core.management.commands.runserver.run", note),
        patch.object(logging.getLogger(), "handlers", []),
    ):
        call_command(command, "0", "--noreload", "--skip-checks", *arguments)
    return seen[0]


@pytest.mark.usefixtures("own_process")
def test_process_shows_short_tracebacks_and_its_log() -> None:
    before, serving = Process(), serve()
    assert serving.hook is not before.hook
    assert all(any(isinstance(each, ShortTracebacks) for each in filters) for filters in serving.filters)
    assert len(serving.handlers) == 1


@pytest.mark.usefixtures("own_process")
def test_option_traceback_changes_no_traceback() -> None:
    before, serving = Process(), serve("--traceback")
    assert (serving.hook, serving.filters) == (before.hook, before.filters)
    assert len(serving.handlers) == 1


@pytest.mark.usefixtures("own_process")
@pytest.mark.parametrize("arguments", [(), ("--traceback",)])
def test_noasgi_changes_nothing_in_the_process(arguments: tuple[str, ...]) -> None:
    before = Process()
    assert serve("--noasgi", *arguments) == before


@pytest.mark.usefixtures("own_process")
@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("fails", "the application did not start: no database today"),
        ("fails_to_end", "the application did not end in order: the queue is not empty"),
    ],
)
def test_failure_of_the_application_is_a_sentence(name: str, sentence: str) -> None:
    with pytest.raises(CommandError) as failure:
        serve(run=run, ASGI_APPLICATION=f"{__name__}.{name}")
    assert str(failure.value) == sentence


@pytest.mark.usefixtures("own_process")
@pytest.mark.parametrize("arguments", [(), ("--noasgi",)])
def test_other_errors_of_a_server_are_raised(arguments: tuple[str, ...]) -> None:
    def defect(*args: Any, **options: Any) -> None:
        raise LookupError("a defect")

    with pytest.raises(LookupError, match="a defect"):
        serve(*arguments, run=defect)
