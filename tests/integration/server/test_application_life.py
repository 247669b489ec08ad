"""An application's own lifespan: an async context manager, in servers and in the testing tools."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from django.http import HttpResponse
from django.test import override_settings
from django.urls import path

from trio_channels._concurrency.exception_groups import bare
from trio_channels.asgi import get_asgi_application
from trio_channels.generic.websocket import AsyncWebsocketConsumer
from trio_channels.lifespan import lifespan
from trio_channels.routing import ProtocolTypeRouter
from trio_channels.server import serve as serve_hardened
from trio_channels.server.lifespan import LifespanFailed
from trio_channels.testing import ApplicationCommunicator, running_lifespan

from ...runner.serving import close_code
from ...test_lifespan import happened, layers
from .conftest import Serve, Server, config_for_tests


def router(run: Any, **applications: Any) -> ProtocolTypeRouter:
    return ProtocolTypeRouter({"lifespan": run, **applications})


async def yields_a_dict() -> AsyncIterator[dict[str, Any]]:
    happened.append("begins")
    yield {"answer": 42}
    happened.append("ends")


@asynccontextmanager
async def yields_nothing() -> AsyncIterator[None]:
    happened.append("begins")
    yield
    happened.append("ends")


class Life:
    async def __aenter__(self) -> dict[str, Any]:
        await trio.lowlevel.checkpoint()
        happened.append("begins")
        return {"answer": 42}

    async def __aexit__(self, *_exc: object) -> None:
        await trio.lowlevel.checkpoint()
        happened.append("ends")


async def foreign(scope: Any, receive: Any, send: Any) -> None:
    assert (await receive())["type"] == "lifespan.startup"
    happened.append("begins")
    scope["state"]["answer"] = 42
    await send({"type": "lifespan.startup.complete"})
    assert (await receive())["type"] == "lifespan.shutdown"
    happened.append("ends")
    await send({"type": "lifespan.shutdown.complete"})


ANSWER = {"answer": 42}


@pytest.mark.parametrize(
    ("run", "state", "opens"),
    [
        (yields_a_dict, ANSWER, True),
        (asynccontextmanager(yields_a_dict), ANSWER, True),
        (lifespan(yields_a_dict), ANSWER, True),
        (yields_nothing, {}, True),
        (Life, ANSWER, True),
        (foreign, ANSWER, False),
    ],
)
async def test_block_runs_while_the_layers_are_open(run: Any, state: dict[str, Any], opens: bool) -> None:
    with layers(default={}):
        async with running_lifespan(router(run)) as shared:
            assert shared == state
        assert happened == (["default opened", "begins", "ends", "default closed"] if opens else ["begins", "ends"])


async def test_every_scope_gets_a_copy_of_the_state(serve: Serve) -> None:
    async def tell(scope: Any, receive: Any, send: Any) -> None:
        body = f"{scope['state']['answer']} {sorted(scope['state'])} {id(scope['state']['shared'])}"
        scope["state"]["mine"] = True
        if scope["type"] == "websocket":
            await send({"type": "websocket.accept"})
            await send({"type": "websocket.send", "text": body})
        else:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": body.encode()})

    shared: list[object] = []

    async def run() -> AsyncIterator[dict[str, Any]]:
        yield {"answer": 42, "shared": shared}

    server = await serve(router(run, http=tell, websocket=tell))
    expected = f"42 ['answer', 'shared'] {id(shared)}"
    for _ in range(2):
        assert (await server.request("GET", "/")).body == expected.encode()
        async with server.websocket("/") as client:
            assert await client.get_message() == expected


async def test_views_and_consumers_find_the_state(serve: Serve) -> None:
    class Consumer(AsyncWebsocketConsumer):
        async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
            await self.send(str(self.scope["state"]["answer"]))

    server = await serve(router(yields_a_dict, http=get_asgi_application(), websocket=Consumer.as_asgi()))
    with override_settings(ROOT_URLCONF=__name__):
        assert (await server.request("GET", "/sync/")).body == b"42"
        assert (await server.request("GET", "/async/")).body == b"42"
    async with server.websocket("/") as client:
        await client.send_message("?")
        assert await client.get_message() == "42"


def sync_view(request: Any) -> HttpResponse:
    return HttpResponse(str(request.scope["state"]["answer"]))


async def async_view(request: Any) -> HttpResponse:
    return HttpResponse(str(request.scope["state"]["answer"]))


urlpatterns = [path("sync/", sync_view), path("async/", async_view)]


@asynccontextmanager
async def raises_at_once() -> AsyncIterator[None]:
    if happened:
        raise OSError("no database today")
    yield


async def yields_a_list() -> AsyncIterator[Any]:
    yield [1]


@pytest.mark.parametrize(
    ("run", "reason"),
    [
        (raises_at_once, "OSError: no database today"),
        (yields_a_list, "ConfigurationError: a lifespan must yield a dict, or nothing; got list"),
    ],
)
async def test_block_that_fails_to_begin_fails_the_start(
    run: Any, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    with layers(default={}), pytest.raises(LifespanFailed, match=f"the application did not start: {reason}"):
        async with running_lifespan(router(run)):
            pytest.fail("it started")
    (record,) = caplog.records
    assert (record.name, record.exc_info is not None) == ("trio_channels.lifespan", True)
    assert happened == ["default opened", "default closed"]


async def test_server_without_a_state_is_told() -> None:
    async with ApplicationCommunicator(router(yields_a_dict), {"type": "lifespan"}) as server:
        await server.send_input({"type": "lifespan.startup"})
        answer = await server.receive_output()
    assert answer["type"] == "lifespan.startup.failed"
    assert "the server has no scope['state']" in answer["message"]


async def test_block_that_fails_at_its_end_fails_the_shutdown(caplog: pytest.LogCaptureFixture) -> None:
    async def run() -> AsyncIterator[None]:
        yield
        raise OSError("the queue is not empty")

    with layers(default={}), pytest.raises(LifespanFailed, match=r"did not end in order: OSError: the queue"):
        async with running_lifespan(router(run)):
            pass
    assert [record.message for record in caplog.records] == ["the application failed while it was shutting down"]
    assert happened == ["default opened", "default closed"]


async def fail_soon(crash: trio.Event) -> None:
    await crash.wait()
    raise ValueError("boom")


async def test_task_that_crashes_ends_the_server(caplog: pytest.LogCaptureFixture) -> None:
    crash = trio.Event()

    async def run() -> AsyncIterator[None]:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(fail_soon, crash)
            yield

    async def crashes() -> None:
        async with running_lifespan(router(run)):
            crash.set()
            await trio.sleep_forever()

    with layers(default={}), pytest.raises(LifespanFailed, match="lifespan of the application failed: ValueError"):
        await crashes()
    (record,) = caplog.records
    assert record.name == "trio_channels.lifespan"
    assert record.exc_info is not None
    assert "boom" in str(bare(record.exc_info[1] or ValueError()))


async def test_layers_stay_open_during_the_drain() -> None:
    crash, bye = trio.Event(), trio.Event()
    closed: list[bool] = []

    class Consumer(AsyncWebsocketConsumer):
        async def disconnect(self, code: int) -> None:
            assert code == 1012
            closed.append("default closed" in happened)
            await self.channel_layer.group_send("room", {"type": "bye"})
            bye.set()

    async def run() -> AsyncIterator[None]:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(fail_soon, crash)
            yield

    application = router(run, websocket=Consumer.as_asgi())

    async def crashes() -> None:
        async with trio.open_nursery() as nursery:
            (bind,) = await nursery.start(serve_hardened, application, config_for_tests())
            async with Server(int(bind.rpartition(":")[2])).websocket("/") as client:
                crash.set()
                assert await close_code(client) == 1012

    with layers(default={}), pytest.raises(ExceptionGroup) as group:
        await crashes()
    await bye.wait()
    assert isinstance(bare(group.value), LifespanFailed)
    assert (closed, happened[-1]) == ([False], "default closed")


@pytest.mark.parametrize("stage", ["startup", "lifespan"])
async def test_block_that_ends_by_itself_is_a_failure(stage: str) -> None:
    end = trio.CancelScope()

    async def run() -> AsyncIterator[None]:
        with end:
            if stage == "startup":
                end.cancel()
            yield

    async def ends() -> None:
        async with running_lifespan(router(run)):
            end.cancel()
            await trio.sleep_forever()

    with layers(default={}), pytest.raises(LifespanFailed, match="the lifespan ended before the server") as failed:
        await ends()
    assert failed.value.stage == stage
    assert happened == ["default opened", "default closed"]


async def test_error_of_a_test_stays_bare() -> None:
    with pytest.raises(KeyError):
        async with running_lifespan(router(yields_a_dict)):
            raise KeyError("mine")


async def test_server_that_only_listens_is_served_on(caplog: pytest.LogCaptureFixture) -> None:
    """Such as hypercorn without the hardening: the crash is logged, and the layers stay open until its end."""

    async def crashing() -> AsyncIterator[None]:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(fail_soon, crash)
            yield

    crash = trio.Event()
    with layers(default={}):
        async with ApplicationCommunicator(router(crashing), {"type": "lifespan"}) as server:
            await server.send_input({"type": "lifespan.startup"})
            await server.receive_output()
            crash.set()
            assert (await server.receive_output())["type"] == "lifespan.shutdown.failed"
            assert happened == ["default opened"]
            await server.send_input({"type": "lifespan.shutdown"})
            with pytest.raises(ExceptionGroup):
                await server.wait()
    assert happened == ["default opened", "default closed"]
    assert len(caplog.records) == 1


async def test_end_that_fails_is_told_to_any_server() -> None:
    async def run() -> AsyncIterator[None]:
        yield
        raise OSError("the queue is not empty")

    async with ApplicationCommunicator(router(run), {"type": "lifespan"}) as server:
        for event, answer in (("startup", "startup.complete"), ("shutdown", "shutdown.failed")):
            await server.send_input({"type": f"lifespan.{event}"})
            assert (await server.receive_output())["type"] == f"lifespan.{answer}"
        await server.wait()
