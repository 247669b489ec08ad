"""The direct path of requests: our server's queue and Django's handler meet, and ASGI shows no difference."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest
import trio
import trio.testing
from django.http import HttpRequest, HttpResponse
from django.test import override_settings
from django.urls import path

from trio_channels._concurrency.queues import Inbox
from trio_channels._http.client import Client, ClientLeft
from trio_channels._http.handler import DjangoHandler

from .clients import read_until, serving_ours
from .test_direct import through_asgi

NOTES: list[str] = []
TASKS: list[int] = []


def echo(request: HttpRequest) -> HttpResponse:
    return HttpResponse(b"%s %s." % (request.method.encode(), request.body))  # type: ignore[union-attr]


async def async_echo(request: HttpRequest) -> HttpResponse:
    TASKS.append(trio.lowlevel.current_statistics().tasks_living)
    return HttpResponse(b"%s %s." % (request.method.encode(), request.body))  # type: ignore[union-attr]


async def wait(request: HttpRequest) -> HttpResponse:
    NOTES.append("entered")
    try:
        await trio.sleep_forever()
    finally:
        NOTES.append("ended")
    return HttpResponse()


urlpatterns = [path("sync/", echo), path("async/", async_echo), path("wait/", wait)]


@pytest.fixture(params=["direct", "ASGI"])
def application(request: pytest.FixtureRequest) -> Iterator[Any]:
    NOTES.clear()
    TASKS.clear()
    with override_settings(ROOT_URLCONF=__name__, MIDDLEWARE=[]):
        handler = DjangoHandler()
        yield handler if request.param == "direct" else through_asgi(handler)


REQUESTS = {
    "no body": (b"GET %s HTTP/1.1\r\nHost: a\r\n\r\n", b"GET ."),
    "empty body": (b"POST %s HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n", b"POST ."),
    "POST without a length": (b"POST %s HTTP/1.1\r\nHost: a\r\n\r\n", b"POST ."),
    "body": (b"POST %s HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc", b"POST abc."),
    "body of a GET": (b"GET %s HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc", b"GET abc."),
    "chunks": (b"POST %s HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n", b"POST a."),
    "HTTP/1.0": (b"GET %s HTTP/1.0\r\n\r\n", b"GET ."),
    "100-continue without a body": (b"GET %s HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n\r\n", b"GET ."),
    "upgrade that is none": (b"GET %s HTTP/1.1\r\nHost: a\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n", b"GET ."),
}


@pytest.mark.parametrize("target", [b"/sync/", b"/async/"])
@pytest.mark.parametrize("case", REQUESTS)
async def test_request_is_answered(case: str, target: bytes, application: Any) -> None:
    request, end = REQUESTS[case]
    async with serving_ours(application) as server, await server.connect() as stream:
        await stream.send_all(request % target)
        answer = await read_until(stream, end)
    assert answer.startswith((b"HTTP/1.1 200", b"HTTP/1.0 200"))
    assert b"100 Continue" not in answer


@pytest.mark.parametrize("target", [b"/sync/", b"/async/"])
async def test_pipelined_requests_are_answered_in_order(target: bytes, application: Any) -> None:
    async with serving_ours(application) as server, await server.connect() as stream:
        cases = [REQUESTS[name] for name in ("no body", "body", "no body", "chunks", "empty body")]
        await stream.send_all(b"".join(request % target for request, _ in cases))
        data = b""
        for _, end in cases:
            while end not in data:
                data += await read_until(stream, b".")
            data = data[data.index(end) + len(end) :]
    assert b"HTTP" not in data


@pytest.mark.parametrize("way", ["closes", "resets"])
async def test_async_view_is_cancelled_when_its_client_leaves(way: str, application: Any) -> None:
    async with serving_ours(application) as server:
        stream = await server.connect()
        await stream.send_all(REQUESTS["no body"][0] % b"/wait/")
        while not NOTES:
            await trio.testing.wait_all_tasks_blocked()
        if way == "resets":
            stream.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
        await stream.aclose()
        while len(NOTES) < 2:
            await trio.testing.wait_all_tasks_blocked()
    assert NOTES == ["entered", "ended"]


async def test_no_task_watches_on_the_direct_path() -> None:
    TASKS.clear()
    with override_settings(ROOT_URLCONF=__name__, MIDDLEWARE=[]):
        for application in (DjangoHandler(), through_asgi(DjangoHandler())):
            async with serving_ours(application) as server, await server.connect() as stream:
                await stream.send_all(REQUESTS["no body"][0] % b"/async/")
                await read_until(stream, b"GET .")
    direct, watched = TASKS
    assert watched == direct + 1


# -- the client, and the queue ----------------------------------------------------------------------------------------

END = {"type": "http.disconnect"}


def client_of(inbox: Inbox) -> Client:
    async def send(message: Any) -> None:
        raise AssertionError(message)

    return Client({"type": "http", "extensions": {"trio_channels.direct": inbox}}, inbox.receive, send)


async def test_event_that_is_another_is_not_taken() -> None:
    inbox = Inbox(2)
    assert not inbox.take_if({"type": "a"})
    inbox.offer({"type": "a"})
    assert not inbox.take_if({"type": "b"})
    assert inbox.take_if({"type": "a"})
    assert not inbox.take_if({"type": "a"})


async def test_taken_event_makes_room() -> None:
    inbox = Inbox(1)
    inbox.offer({"type": "a"})
    async with trio.open_nursery() as nursery:
        nursery.start_soon(inbox, {"type": "b"})
        await trio.testing.wait_all_tasks_blocked()
        assert inbox.take_if({"type": "a"})
    assert inbox.take_if({"type": "b"})


async def test_only_functions_that_wait_are_told_of_the_end() -> None:
    inbox, told = Inbox(1), []
    calls: list[Callable[[Any], object]] = [lambda _, name=name: told.append(name) for name in "abc"]  # type: ignore[misc]
    for call in calls:
        inbox.when_over(call)
    inbox.no_longer(calls[1])
    inbox.end(END)
    inbox.end(END)
    inbox.when_over(calls[1])
    assert told == ["a", "c", "b"]


async def test_client_that_has_left_runs_nothing_more() -> None:
    inbox = Inbox(1)
    client, ran = client_of(inbox), []

    async def note() -> None:
        ran.append(True)
        await trio.lowlevel.checkpoint()
        ran.append(False)

    inbox.end(END)
    with pytest.raises(ClientLeft):
        await client.while_there(note)  # it is seen at the first checkpoint
    assert ran == [True]
    with pytest.raises(ClientLeft):
        await client.while_there(note)
    assert ran == [True]
    assert ", gone" in repr(client)


async def test_inner_and_outer_code_are_both_cancelled() -> None:
    inbox = Inbox(1)
    client = client_of(inbox)
    ends: list[str] = []

    async def noting(name: str, function: Callable[[], Awaitable[None]]) -> None:
        try:
            await function()
        finally:
            ends.append(name)

    async def outer() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(noting, "beside", trio.sleep_forever)
            await client.while_there(noting, "inner", trio.sleep_forever)

    async with trio.open_nursery() as nursery:

        async def run() -> None:
            with pytest.raises((ClientLeft, BaseExceptionGroup)):
                await client.while_there(noting, "outer", outer)

        nursery.start_soon(run)
        await trio.testing.wait_all_tasks_blocked()
        inbox.end(END)
    assert sorted(ends) == ["beside", "inner", "outer"]


async def test_result_that_came_before_the_end_is_kept() -> None:
    inbox = Inbox(1)
    client = client_of(inbox)

    async def answer() -> int:
        inbox.end(END)
        return 1

    assert await client.while_there(answer) == 1


async def test_failure_of_the_code_is_raised_as_it_is() -> None:
    client = client_of(Inbox(1))

    async def fail() -> None:
        await trio.lowlevel.checkpoint()
        raise LookupError("as asked")

    with pytest.raises(LookupError, match="as asked"):
        await client.while_there(fail)


async def test_cancellation_from_outside_is_not_the_clients() -> None:
    client = client_of(Inbox(1))
    with trio.CancelScope() as scope:
        scope.cancel()
        await client.while_there(trio.sleep_forever)
    assert scope.cancelled_caught
    assert "gone" not in repr(client)
