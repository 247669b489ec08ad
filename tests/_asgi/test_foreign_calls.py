"""Each function of asyncio, called in a Trio task: an exception, with a note that names Trio's way."""

from __future__ import annotations

import asyncio
import concurrent.futures
import importlib
import inspect
import logging
import sys
from collections.abc import Callable, Coroutine, Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
import trio
from django.contrib.auth.models import User
from django.core.exceptions import SynchronousOnlyOperation
from django.http import HttpRequest, HttpResponse
from django.test import override_settings
from django.urls import path
from hypercorn.config import Config

from trio_channels import WebSocket, websocket
from trio_channels._asgi.foreign_calls import LIBRARIES, TRIO_WAYS, explain
from trio_channels._http.handler import DjangoHandler
from trio_channels.generic.websocket import AsyncWebsocketConsumer
from trio_channels.routing import ProtocolTypeRouter
from trio_channels.server import serve
from trio_channels.testing import HttpCommunicator, ScriptedConnection, WebsocketCommunicator

TROUBLESHOOTING = Path(__file__).parents[2] / "docs" / "how-to" / "troubleshoot.md"


_started: list[Coroutine[Any, Any, None]] = []


def work() -> Coroutine[Any, Any, None]:
    """A coroutine that most of the calls here never await; it is closed after the test."""

    async def working() -> None:
        await trio.lowlevel.checkpoint()

    _started.append(working())
    return _started[-1]


@pytest.fixture(autouse=True)
def closed_coroutines() -> Iterator[None]:
    yield
    while _started:
        _started.pop().close()


async def wait_for_lock() -> None:
    lock = asyncio.Lock()
    await lock.acquire()
    await lock.acquire()


async def wait_for_condition() -> None:
    condition = asyncio.Condition()
    async with condition:
        await condition.wait()


async def in_time() -> None:
    async with asyncio.timeout(5):
        await work()


async def in_group() -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(work())


async def wait_for_task() -> None:
    await asyncio.wait([asyncio.ensure_future(work())])


#: The function of asyncio, a call of it, and a part of the note; "" if its frames do not tell which function it was.
CALLS: list[tuple[str, Callable[[], Any], str]] = [
    ("sleep", lambda: asyncio.sleep(1), "trio.sleep"),
    ("sleep", lambda: asyncio.sleep(0), "trio.sleep"),
    ("create_task", lambda: asyncio.create_task(work()), "self.start_soon(function)"),
    ("ensure_future", lambda: asyncio.ensure_future(work()), "self.start_soon(function)"),
    ("ensure_future", wait_for_task, "self.start_soon(function)"),
    ("", lambda: asyncio.get_event_loop().create_task(work()), "self.start_soon(function)"),
    ("", asyncio.get_running_loop, "self.start_soon(function)"),
    ("", asyncio.Future, "self.start_soon(function)"),
    ("gather", lambda: asyncio.gather(work(), work()), "trio.open_nursery"),
    ("gather", asyncio.gather, "trio.open_nursery"),
    ("as_completed", lambda: list(asyncio.as_completed([work()])), "trio.open_nursery"),
    ("shield", lambda: asyncio.shield(work()), "trio.open_nursery"),
    ("TaskGroup", in_group, "trio.open_nursery"),
    ("wait_for", lambda: asyncio.wait_for(work(), 5), "trio.fail_after"),
    ("timeout", in_time, "trio.fail_after"),
    ("to_thread", lambda: asyncio.to_thread(print), "sync_to_async"),
    ("Event", lambda: asyncio.Event().wait(), "trio.Event"),
    ("Lock", wait_for_lock, "trio.Lock"),
    ("Condition", wait_for_condition, "trio.Condition"),
    ("Semaphore", lambda: asyncio.Semaphore(0).acquire(), "trio.Semaphore"),
    ("Barrier", lambda: asyncio.Barrier(2).wait(), "trio.Event"),
    ("Queue", lambda: asyncio.Queue[int]().get(), "trio.open_memory_channel"),
    ("wrap_future", lambda: asyncio.wrap_future(concurrent.futures.Future[int]()), "trio.open_memory_channel"),
    ("open_connection", lambda: asyncio.open_connection("127.0.0.1", 1), "trio.open_tcp_stream"),
    ("start_server", lambda: asyncio.start_server(print, "127.0.0.1", 0), "trio.serve_tcp"),
    ("create_subprocess_exec", lambda: asyncio.create_subprocess_exec("true"), "trio.run_process"),
]


@pytest.mark.parametrize(
    ("name", "call", "way"), CALLS, ids=[f"{name or 'other'}{n}" for n, (name, *_) in enumerate(CALLS)]
)
async def test_note_names_trios_way(name: str, call: Callable[[], Any], way: str) -> None:
    async def run() -> None:
        result = call()
        if inspect.isawaitable(result):
            await result

    with pytest.raises((RuntimeError, TypeError, AttributeError)) as failed:
        await run()
    explain(failed.value)
    explain(failed.value)
    [note] = failed.value.__notes__
    assert note.startswith(f"asyncio.{name} does not" if name else "asyncio does not")
    assert way in note


async def test_asyncio_run_is_refused_and_runs_nothing() -> None:
    ran = []

    async def main() -> None:
        ran.append(True)

    with pytest.raises(RuntimeError, match=r"would block every task there\. Await the function"):
        asyncio.run(main())
    await trio.to_thread.run_sync(asyncio.run, main())  # a thread may have a loop of its own
    assert ran == [True]


@pytest.mark.parametrize("name", [*TRIO_WAYS, *LIBRARIES])
def test_troubleshooting_page_has_it(name: str) -> None:
    assert f"`{name}`" in TROUBLESHOOTING.read_text()


@pytest.mark.parametrize("name", TRIO_WAYS)
def test_name_is_one_of_asyncios(name: str) -> None:
    assert hasattr(asyncio, name) or hasattr(asyncio.AbstractEventLoop, name)


# -- where it may be called -------------------------------------------------------------------------------------------


class Handler(AsyncWebsocketConsumer):
    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        asyncio.ensure_future(work())  # noqa: RUF006 - as people write it


class Background(AsyncWebsocketConsumer):
    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        self.start_soon(asyncio.sleep, 1)


class InNursery(AsyncWebsocketConsumer):
    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(asyncio.sleep, 1)


@websocket
async def endpoint(ws: WebSocket) -> None:
    await ws.accept()
    await ws.receive()
    await asyncio.sleep(1)


PLACES = {
    "handler": Handler.as_asgi(),
    "background": Background.as_asgi(),
    "nursery": InNursery.as_asgi(),
    "endpoint": endpoint,
}


@pytest.mark.parametrize("application", PLACES.values(), ids=PLACES)
async def test_error_of_a_websocket_has_the_note(application: Any) -> None:
    client = WebsocketCommunicator(application, "/")
    await client.connect()
    await client.send_to(text_data="x")
    with pytest.raises((RuntimeError, ExceptionGroup)) as failed:
        await client.wait()
    leaf = failed.value.exceptions[0] if isinstance(failed.value, ExceptionGroup) else failed.value
    assert any("does not work in a Trio task" in note for note in leaf.__notes__)


class HasNoLayer(AsyncWebsocketConsumer):
    async def connect(self) -> None:
        await self.channel_layer.group_add("room", "channel")


async def test_missing_channel_layer_has_a_note(settings: Any) -> None:
    settings.CHANNEL_LAYERS = {}
    client = WebsocketCommunicator(HasNoLayer.as_asgi(), "/")
    with pytest.raises(AttributeError) as failed:
        await client.connect()
    assert [note for note in failed.value.__notes__ if "put CHANNEL_LAYERS = {'default'" in note]


@pytest.mark.parametrize("of", [None, object()])
def test_another_missing_attribute_has_none(of: Any) -> None:
    with pytest.raises(AttributeError) as failed:
        of.group if of is None else of.group_add  # noqa: B018 - raises
    explain(failed.value)
    assert not hasattr(failed.value, "__notes__")


class Blocks(AsyncWebsocketConsumer):
    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        User.objects.count()


@pytest.mark.parametrize("on_trio", [True, False])
async def test_blocking_query_has_a_note(on_trio: bool) -> None:
    client = WebsocketCommunicator(Blocks.as_asgi(), "/")
    await client.connect()
    await client.send_to(text_data="x")
    with pytest.raises(SynchronousOnlyOperation) as failed:
        await client.wait()
    assert [note for note in failed.value.__notes__ if "@database_sync_to_async" in note and "aget()" in note]
    again = SynchronousOnlyOperation()
    explain(again, on_trio=on_trio)
    assert hasattr(again, "__notes__") is on_trio


async def view(request: HttpRequest) -> HttpResponse:
    await asyncio.sleep(1)
    return HttpResponse()


def in_thread(request: HttpRequest) -> HttpResponse:
    asyncio.get_running_loop()
    return HttpResponse()


def asynchronous_middleware(get_response: Any) -> Any:
    async def middleware(request: HttpRequest) -> HttpResponse:
        await asyncio.sleep(1)
        response: HttpResponse = await get_response(request)
        return response

    return middleware


asynchronous_middleware.async_capable = True  # type: ignore[attr-defined]
asynchronous_middleware.sync_capable = False  # type: ignore[attr-defined]

urlpatterns = [path("view/", view), path("thread/", in_thread)]


@pytest.mark.parametrize("middleware", [[], [f"{__name__}.asynchronous_middleware"]], ids=["view", "middleware"])
@pytest.mark.parametrize("target", ["/view/", "/thread/"])
async def test_error_of_django_has_the_note(
    target: str, middleware: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    with override_settings(ROOT_URLCONF=__name__, MIDDLEWARE=middleware, DEBUG=False):
        async with HttpCommunicator(DjangoHandler(), "GET", target, headers=[(b"host", b"localhost")]) as client:
            assert (await client.get_response())["status"] == 500
    [error] = [record.exc_info[1] for record in caplog.records if record.exc_info and record.exc_info[1]]
    assert any("asyncio" in note and "Trio task: use" in note for note in error.__notes__)


async def lifespan(scope: Any, receive: Any, send: Any) -> None:
    await receive()
    await asyncio.sleep(1)


async def test_error_of_a_lifespan_has_the_note() -> None:
    connection = ScriptedConnection({"type": "lifespan"}, [{"type": "lifespan.startup"}])
    with pytest.raises(RuntimeError) as failed:
        await connection.run(ProtocolTypeRouter({"lifespan": lifespan}))
    assert failed.value.__notes__ == ["asyncio.sleep does not work in a Trio task: use trio.sleep(seconds)"]


async def bare(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] != "http":
        raise LookupError(scope["type"])
    await asyncio.sleep(1)


async def in_group_of_tasks(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] != "http":
        raise LookupError(scope["type"])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(asyncio.sleep, 1)


@pytest.mark.parametrize("application", [bare, in_group_of_tasks])
async def test_error_of_an_application_that_is_not_ours_has_it(
    application: Any, caplog: pytest.LogCaptureFixture
) -> None:
    config = Config()
    config.bind, config.errorlog = ["127.0.0.1:0"], logging.getLogger("tests.errors")
    stop = trio.Event()
    async with trio.open_nursery() as nursery:

        async def run(task_status: trio.TaskStatus[list[str]]) -> None:
            await serve(application, config, shutdown_trigger=stop.wait, task_status=task_status)

        [address] = await nursery.start(run)
        async with aclosing(await trio.open_tcp_stream("127.0.0.1", int(address.rpartition(":")[2]))) as client:
            await client.send_all(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
            assert b" 500 " in await client.receive_some()
        stop.set()
    assert "asyncio.sleep does not work in a Trio task: use trio.sleep(seconds)" in caplog.text


# -- libraries --------------------------------------------------------------------------------------------------------

LIBRARY = """
import asyncio

async def connect():
    try:
        await asyncio.sleep(1)
    except RuntimeError as error:
        if __name__ in ("redis.asyncio", "unheard_of"):
            raise OSError("cannot connect") from error
        raise
"""


@pytest.fixture
def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], Any]]:
    """Imports a library of that name, installed as pip would, that is written for asyncio."""
    folder = tmp_path / "site-packages"
    monkeypatch.syspath_prepend(str(folder))
    made: list[str] = []

    def make(name: str) -> Any:
        parts = name.split(".")
        for length in range(1, len(parts) + 1):
            package = folder.joinpath(*parts[:length])
            package.mkdir(parents=True, exist_ok=True)
            (package / "__init__.py").write_text(LIBRARY)
            made.append(".".join(parts[:length]))
        for one in made:
            monkeypatch.delitem(sys.modules, one, raising=False)
        return importlib.import_module(name)

    yield make
    for one in made:
        monkeypatch.delitem(sys.modules, one, raising=False)


@pytest.mark.parametrize(
    ("name", "way"),
    [
        ("aiohttp", "aiohttp is written for asyncio, and here Trio runs: use httpx"),
        ("redis.asyncio", "redis is written for asyncio, and here Trio runs: use a synchronous redis.Redis"),
        ("asyncpg", "a synchronous driver"),
        ("motor.core", "pymongo.MongoClient"),
        ("channels.layers", "channels is written for asyncio, and here Trio runs: use the same names of trio_channels"),
        ("unheard_of", "unheard_of is written for asyncio, and here Trio runs: use a library for Trio or AnyIO"),
    ],
)
async def test_note_names_the_library(library: Callable[[str], Any], name: str, way: str) -> None:
    with pytest.raises((RuntimeError, OSError)) as failed:
        await library(name).connect()
    # The reason is noted where it is seen, on the error that the library has made of it.
    explain(failed.value)
    [note] = failed.value.__notes__
    assert way in note


# -- Trio where none runs ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("function", [trio.lowlevel.checkpoint, trio.sleep_forever, trio.Event().wait])
def test_trio_called_by_asyncio_is_noted(function: Callable[[], Any]) -> None:
    async def main() -> None:
        await function()

    with pytest.raises(RuntimeError) as failed:
        asyncio.run(main())
    explain(failed.value, on_trio=False)
    [note] = failed.value.__notes__
    assert "trio_channels.sync.async_to_sync" in note


def test_asyncios_own_mistakes_are_not_noted_there() -> None:
    with pytest.raises(RuntimeError) as failed:
        asyncio.get_running_loop()
    explain(failed.value, on_trio=False)
    assert not hasattr(failed.value, "__notes__")


@pytest.mark.parametrize("error", [RuntimeError("no route"), ValueError("no running event loop"), TypeError()])
def test_other_errors_are_left_alone(error: Exception) -> None:
    explain(error)
    assert not hasattr(error, "__notes__")


def test_causes_that_go_in_a_circle_are_seen_once() -> None:
    one, other = OSError("one"), OSError("other")
    one.__cause__, other.__cause__ = other, one
    explain(one)
    assert not hasattr(one, "__notes__")


def test_suppressed_context_is_no_cause() -> None:
    error = OSError("a new one")
    error.__context__, error.__suppress_context__ = RuntimeError("no running event loop"), True
    explain(error)
    assert not hasattr(error, "__notes__")


def test_error_that_was_never_raised_has_a_general_note() -> None:
    error = OSError("no frames")
    error.__context__ = RuntimeError("no running event loop")
    explain(error)
    assert error.__notes__[0].startswith("asyncio does not work in a Trio task")
