"""Under ``runserver`` the traceback of an error in the project begins in the project."""

from __future__ import annotations

import contextlib
import logging
import re
import sys
import threading

import pytest
import trio
from django.core.management import CommandError
from trio_websocket import wrap_client_stream

from trio_channels.management._tracebacks import LOGGERS, short_traceback, shorten_tracebacks

from .conftest import ASGI, Project

SETTINGS = '\nMIDDLEWARE = ["django.middleware.common.CommonMiddleware"]\n'
URLS = """
from django.http import HttpResponse
from django.urls import path
def plain(request):
    raise ValueError("boom in a view")
async def on_trio(request):
    raise ValueError("boom in an async view")
urlpatterns = [path("plain/", plain), path("trio/", on_trio)]
"""
FAILING = """
import trio
from trio_channels.asgi import get_asgi_application
from trio_channels.generic.websocket import AsyncWebsocketConsumer, WebsocketConsumer
from trio_channels.routing import ProtocolTypeRouter, URLRouter
from django.urls import path
http = get_asgi_application()
class Handler(AsyncWebsocketConsumer):
    async def receive(self, text_data=None, bytes_data=None):
        raise ValueError("boom in a handler")
class Plain(WebsocketConsumer):
    def receive(self, text_data=None, bytes_data=None):
        raise ValueError("boom in a synchronous handler")
class Background(AsyncWebsocketConsumer):
    async def receive(self, text_data=None, bytes_data=None):
        self.start_soon(self.fail)
    async def fail(self):
        raise ValueError("boom in the background")
class Nursery(AsyncWebsocketConsumer):
    async def receive(self, text_data=None, bytes_data=None):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.fail)
    async def fail(self):
        raise ValueError("boom in a nursery")
class Illegal(AsyncWebsocketConsumer):
    async def receive(self, text_data=None, bytes_data=None):
        await self.send_message({"type": "http.response.start"})
    async def send_message(self, message):
        await self.connection.send(message)
async def lifespan(scope, receive, send):
    await receive()
    raise ValueError("boom in the lifespan")
routes = [path(f"{each.__name__}/", each.as_asgi()) for each in (Handler, Plain, Background, Nursery, Illegal)]
application = ProtocolTypeRouter({"http": http, "websocket": URLRouter(routes), "lifespan": lifespan})
"""
#: The places of a failing project, and the errors that the log must show.
VIEWS = {"/plain/": "ValueError: boom in a view", "/trio/": "ValueError: boom in an async view"}
SOCKETS = {
    "/Handler/": "ValueError: boom in a handler",
    "/Plain/": "ValueError: boom in a synchronous handler",
    "/Background/": "ValueError: boom in the background",
    "/Nursery/": "ValueError: boom in a nursery",
}
FRAMEWORK = re.compile(r'File "[^"]*/(trio_channels|trio|hypercorn|outcome|asgiref)/')


def fail_in_all_places(project: Project) -> None:
    async def talk(path: str) -> None:
        with contextlib.suppress(Exception):
            async with (
                trio.open_nursery() as nursery,
                await trio.open_tcp_stream("127.0.0.1", project.port) as stream,
                await wrap_client_stream(nursery, stream, "127.0.0.1", path) as client,
            ):
                await client.send_message("fail")
                await client.get_message()

    for path in VIEWS:
        assert project.get(path)[0] == 500
    for path in SOCKETS:
        trio.run(talk, path)
    assert project.stop() == 0


@pytest.fixture
def failing(project: Project) -> Project:
    project.write("site_asgi", FAILING)
    project.write("site_urls", URLS)
    settings = project.folder / "site_settings.py"
    settings.write_text(settings.read_text() + SETTINGS)
    return project


@pytest.mark.faults
def test_traceback_begins_in_the_project(failing: Project) -> None:
    failing.serve("0", "--noreload")
    fail_in_all_places(failing)
    first = re.findall(r'Traceback \(most recent call last\):\n  File "([^"]+)"', failing.output)
    assert len(first) == len(VIEWS) + len(SOCKETS) + 1, failing.output  # and of the lifespan
    assert {file.rpartition("/")[2] for file in first} == {"site_asgi.py", "site_urls.py"}
    assert FRAMEWORK.search(failing.output) is None, failing.output
    for error in (*VIEWS.values(), *SOCKETS.values(), "ValueError: boom in the lifespan"):
        assert len(re.findall(f"(?m)^{error}$", failing.output)) == 1, failing.output
    assert len(re.findall(r"(?m)^on websocket /\w+/ from 127", failing.output)) == len(SOCKETS), failing.output
    assert "Error in ASGI Framework" not in failing.output


@pytest.mark.faults
def test_option_traceback_shows_all_frames(failing: Project) -> None:
    failing.serve("0", "--noreload", "--traceback")
    fail_in_all_places(failing)
    assert len(re.findall(FRAMEWORK, failing.output)) > len(VIEWS) + len(SOCKETS)
    assert "Error in ASGI Framework" not in failing.output


BROKEN = {
    "missing module": ("import no_such_module", 'site_asgi.py", line 1', "ModuleNotFoundError: No module named"),
    "wrong name": ("from trio_channels import nothing_such", 'site_asgi.py", line 1', "ImportError: cannot import"),
    "error": ("\n1 / 0", 'site_asgi.py", line 2', "ZeroDivisionError: division by zero"),
    "no Python": ("def f(:", 'site_asgi.py", line 1', "SyntaxError: invalid syntax"),
}


@pytest.mark.faults
@pytest.mark.parametrize("reload", [True, False])
@pytest.mark.parametrize("case", BROKEN)
def test_error_of_asgi_py_begins_in_it(project: Project, case: str, reload: bool) -> None:
    text, place, error = BROKEN[case]
    project.write("site_asgi", text)
    project.start("0", *(() if reload else ("--noreload",)))
    project.wait_for(f"({re.escape(error)})")
    if reload:
        with project.changing("site_asgi", ASGI):
            project.wait_for("(changed, reloading)")
        project.wait_until_it_listens()
        assert project.stop() == 0
    else:
        assert project.wait() == 1
    first = next(line for line in project.output.splitlines() if line.startswith("  File "))
    assert place in first, project.output
    assert FRAMEWORK.search(project.output) is None, project.output


@pytest.mark.faults
def test_failed_start_is_one_line(project: Project) -> None:
    project.write(
        "site_asgi",
        "async def application(scope, receive, send):\n"
        "    await receive()\n"
        '    await send({"type": "lifespan.startup.failed", "message": "no database today"})\n',
    )
    project.start("0", "--noreload")
    assert project.wait() == 1
    assert project.output.endswith("CommandError: the application did not start: no database today\n")
    assert "Traceback" not in project.output


LIFE = """
import trio.testing
from trio_channels.routing import ProtocolTypeRouter
from trio_channels.asgi import get_asgi_application
async def fail():
    await trio.testing.wait_all_tasks_blocked()
    raise ValueError("the feed has ended")
async def run():
    async with trio.open_nursery() as nursery:
        nursery.start_soon(fail)
        yield
application = ProtocolTypeRouter({"http": get_asgi_application(), "lifespan": run})
"""


@pytest.mark.faults
def test_crashed_lifespan_ends_it_with_a_sentence(project: Project) -> None:
    project.write("site_asgi", LIFE)
    project.start("0", "--noreload")
    assert project.wait() == 1
    assert project.output.endswith(
        "CommandError: the lifespan of the application failed: ValueError: the feed has ended\n"
    )
    assert project.output.count("Traceback") == 1
    assert FRAMEWORK.search(project.output) is None, project.output


# -- the text ---------------------------------------------------------------------------------------------------------


def raised(function: object) -> Exception:
    try:
        function()  # type: ignore[operator]
    except Exception as error:
        return error
    raise AssertionError("nothing was raised")


def fail() -> None:
    raise ValueError("boom")


def test_group_of_one_is_shown_as_its_exception() -> None:
    leaf = raised(fail)
    leaf.add_note("of the leaf")
    outer = ExceptionGroup("outer", [ExceptionGroup("inner", [leaf])])
    outer.add_note("of the group")
    shown = short_traceback(outer)
    assert shown.splitlines()[-3:] == ["ValueError: boom", "of the leaf", "of the group"]
    assert "Group" not in shown


def test_group_of_several_is_shown_whole() -> None:
    shown = short_traceback(ExceptionGroup("both", [raised(fail), ExceptionGroup("none", [KeyError("a"), OSError()])]))
    assert "both (2 sub-exceptions)" in shown
    assert "ValueError: boom" in shown
    assert "KeyError: 'a'" in shown


def test_causes_are_shortened_too() -> None:
    def chain() -> None:
        try:
            trio.run(trio.sleep, "no number")
        except TypeError as error:
            raise ValueError("boom") from error

    shown = short_traceback(raised(chain))
    assert "direct cause" in shown
    assert FRAMEWORK.search(shown) is None
    assert shown.count(__file__) >= 2


def test_error_without_a_frame_of_the_project_keeps_its_frames() -> None:
    error = raised(threading.Thread(target=trio.run, args=[trio.sleep, "no number"]).run)
    trace = error.__traceback__
    while trace is not None and not trace.tb_frame.f_code.co_filename.endswith("threading.py"):
        trace = trace.tb_next
    assert "threading.py" in short_traceback(error.with_traceback(trace))


def test_error_of_the_framework_alone_is_shown_whole() -> None:
    error = raised(lambda: trio.run(trio.sleep, "no number"))
    trace = error.__traceback__
    while trace is not None and "/trio/" not in trace.tb_frame.f_code.co_filename:
        trace = trace.tb_next
    assert FRAMEWORK.search(short_traceback(error.with_traceback(trace))) is not None


@pytest.fixture
def shortened(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    monkeypatch.setattr(threading, "excepthook", threading.excepthook)
    for name in LOGGERS:
        monkeypatch.setattr(logging.getLogger(name), "filters", [])
    shorten_tracebacks()
    shorten_tracebacks()


@pytest.mark.usefixtures("shortened")
def test_record_keeps_its_exception(caplog: pytest.LogCaptureFixture) -> None:
    error = raised(fail)
    logger = logging.getLogger("hypercorn.error")
    logger.error("heading", exc_info=error)
    logger.error("no exception")
    assert len(logger.filters) == 1
    assert caplog.records[0].exc_info is not None
    assert caplog.records[0].exc_info[1] is error
    assert str(caplog.records[0].exc_text).startswith("Traceback")
    assert caplog.records[1].exc_text is None


@pytest.mark.usefixtures("shortened")
def test_unhandled_errors_are_shown_short(capsys: pytest.CaptureFixture[str]) -> None:
    error = raised(fail)
    sys.excepthook(type(error), error, error.__traceback__)
    thread = threading.Thread(target=fail)
    thread.start()
    thread.join()
    ending = threading.Thread(target=sys.exit)
    ending.start()
    ending.join()
    assert capsys.readouterr().err.count("ValueError: boom\n") == 2
    sys.excepthook(CommandError, CommandError("in a sentence"), None)
    assert capsys.readouterr().err == "CommandError: in a sentence\n"
    sys.excepthook(KeyboardInterrupt, KeyboardInterrupt(), None)
    assert capsys.readouterr().err.endswith("KeyboardInterrupt\n")
