"""HTTP consumers: whole responses, streams, and requests that stay open."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from trio_channels._limits import Limits
from trio_channels.exceptions import IllegalMessage, StopConsumer
from trio_channels.generic.http import AsyncHttpConsumer
from trio_channels.layers import InMemoryChannelLayer
from trio_channels.testing import HttpCommunicator, ScriptedConnection

SCOPE = {"type": "http", "path": "/events/", "method": "GET"}
GONE = {"type": "http.disconnect"}


def request(body: bytes = b"", *, more: bool = False) -> dict[str, Any]:
    return {"type": "http.request", "body": body, "more_body": more}


@pytest.fixture
def layer() -> InMemoryChannelLayer:
    return InMemoryChannelLayer(capacity=5)


class Recorder(AsyncHttpConsumer):
    """Counts its ends."""

    def __init__(self, log: list[str] | None = None) -> None:
        super().__init__()
        self.log = [] if log is None else log

    async def disconnect(self) -> None:
        self.log.append("disconnect")


async def test_request_is_answered() -> None:
    class Greets(AsyncHttpConsumer):
        async def handle(self, body: bytes) -> None:
            await self.send_response(201, b"hello " + body, {b"content-type": b"text/plain"})

    response = await HttpCommunicator(Greets.as_asgi(), "POST", "/", body=b"Ada").get_response()
    assert response == {"status": 201, "headers": [(b"content-type", b"text/plain")], "body": b"hello Ada"}


async def test_response_needs_no_headers() -> None:
    class Greets(AsyncHttpConsumer):
        async def handle(self, body: bytes) -> None:
            await self.send_response(200, b"hello", headers=None)

    response = await HttpCommunicator(Greets.as_asgi(), "GET", "/").get_response()
    assert response == {"status": 200, "headers": [], "body": b"hello"}


async def test_what_a_class_is_made_with_may_be_passed_on_to_the_base() -> None:
    class Greets(AsyncHttpConsumer):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self.greeting: bytes = kwargs["greeting"]

        async def handle(self, body: bytes) -> None:
            await self.send_response(200, self.greeting)

    response = await HttpCommunicator(Greets.as_asgi(greeting=b"hi"), "GET", "/").get_response()
    assert response["body"] == b"hi"


async def test_disconnect_runs_once_after_a_whole_response() -> None:
    class Greets(Recorder):
        async def handle(self, body: bytes) -> None:
            await self.send_response(200, b"hello")

    log: list[str] = []
    async with HttpCommunicator(Greets.as_asgi(log=log), "GET", "/") as http:
        await http.get_response()
        await http.wait()
    assert log == ["disconnect"]


async def test_body_in_parts_is_handled_whole() -> None:
    class Echo(AsyncHttpConsumer):
        async def handle(self, body: bytes) -> None:
            await self.send_headers(headers=[(b"x-a", b"b")])
            await self.send_body(body, more_body=True)
            await self.send_body(b"!")

    events = [request(b"a", more=True), request(b"b", more=True), request(b"c")]
    sent = await ScriptedConnection(SCOPE, events).run(Echo.as_asgi())
    assert [message.get("body") for message in sent] == [None, b"abc", b"!"]
    assert (sent[0]["status"], sent[0]["headers"]) == (200, [(b"x-a", b"b")])


async def test_body_above_the_limit_is_answered_with_413(settings: Any) -> None:
    class Small(Recorder):
        max_body_size = 3

        async def handle(self, body: bytes) -> None:
            self.log.append("handled")

    log: list[str] = []
    server = ScriptedConnection(SCOPE, [request(b"ab", more=True), request(b"cd", more=True), request(b"e")])
    sent = await server.run(Small.as_asgi(log=log))
    assert (sent[0]["status"], sent[1]["body"]) == (413, b"The request body is too large.\n")
    assert log == ["disconnect"]


@pytest.mark.parametrize(("length", "status"), [(b"4", 413), (b"3", 200)])
async def test_announced_body_above_the_limit_is_not_read(length: bytes, status: int) -> None:
    class Small(AsyncHttpConsumer):
        max_body_size = 3

        async def handle(self, body: bytes) -> None:
            await self.send_response(200, body)

    server = ScriptedConnection({**SCOPE, "headers": [(b"content-length", length)]}, [request(b"abc")])
    sent = await server.run(Small.as_asgi())
    assert sent[0]["status"] == status


async def test_body_at_the_limit_is_handled(settings: Any) -> None:
    settings.TRIO_CHANNELS = {"MAX_BODY_SIZE": 3}

    class Echo(AsyncHttpConsumer):
        async def handle(self, body: bytes) -> None:
            await self.send_response(200, body)

    assert (await HttpCommunicator(Echo.as_asgi(), "POST", "/", body=b"abc").get_response())["status"] == 200
    assert (await HttpCommunicator(Echo.as_asgi(), "POST", "/", body=b"abcd").get_response())["status"] == 413


async def test_client_that_leaves_mid_request_is_not_handled() -> None:
    class Handles(Recorder):
        async def handle(self, body: bytes) -> None:
            self.log.append("handled")

    log: list[str] = []
    assert await ScriptedConnection(SCOPE, [request(b"a", more=True), GONE]).run(Handles.as_asgi(log=log)) == []
    assert log == ["disconnect"]


async def test_handle_that_returns_nothing_is_an_error() -> None:
    class Forgets(Recorder):
        async def handle(self, body: bytes) -> None:
            pass

    log: list[str] = []
    with pytest.raises(IllegalMessage, match=r"Forgets\.handle\(\) returned without a response; expected") as caught:
        await HttpCommunicator(Forgets.as_asgi(log=log), "GET", "/a/").get_response()
    assert caught.value.__notes__ == ["in the handler of 'http.request'", "on http /a/"]
    assert log == ["disconnect"]


async def test_consumer_without_a_handle_says_so() -> None:
    with pytest.raises(NotImplementedError, match="Empty must have a method: async def handle"):
        await HttpCommunicator(type("Empty", (AsyncHttpConsumer,), {}).as_asgi(), "GET", "/").get_response()


async def test_error_before_the_response_is_left_to_the_server() -> None:
    class Fails(Recorder):
        async def handle(self, body: bytes) -> None:
            raise LookupError("mine")

    log: list[str] = []
    server = ScriptedConnection(SCOPE, [request()])
    with pytest.raises(LookupError, match="mine"):
        await server.run(Fails.as_asgi(log=log))
    assert server.sent == []
    assert log == ["disconnect"]


async def test_handle_may_stop_the_consumer() -> None:
    class Stops(Recorder):
        async def handle(self, body: bytes) -> None:
            await self.send_headers(status=204)
            raise StopConsumer

    log: list[str] = []
    assert len(await ScriptedConnection(SCOPE, [request()]).run(Stops.as_asgi(log=log))) == 1
    assert log == ["disconnect"]


async def test_second_response_is_refused() -> None:
    class Twice(AsyncHttpConsumer):
        async def handle(self, body: bytes) -> None:
            await self.send_response(200, b"")
            with pytest.raises(IllegalMessage):
                await self.send_response(200, b"")

    assert (await HttpCommunicator(Twice.as_asgi(), "GET", "/").get_response())["status"] == 200


# -- with a channel layer ---------------------------------------------------------------------------------------------


async def test_long_poll_is_answered_by_a_message_of_the_layer(layer: InMemoryChannelLayer) -> None:
    class Poll(Recorder):
        channel_layer = layer

        async def handle(self, body: bytes) -> None:
            await layer.group_add("news", self.channel_name)
            await self.send_headers()
            await self.send_body(b"", more_body=True)

        async def news(self, event: dict[str, Any]) -> None:
            await self.send_body(event["text"].encode())

    log: list[str] = []
    async with HttpCommunicator(Poll.as_asgi(log=log), "GET", "/") as client, trio.open_nursery() as nursery:
        responses: list[dict[str, Any]] = []

        async def get() -> None:
            responses.append(await client.get_response())

        nursery.start_soon(get)
        await wait_all_tasks_blocked()
        await layer.group_send("news", {"type": "news", "text": "hello"})
    assert responses[0]["body"] == b"hello"
    assert log == ["disconnect"]
    assert (layer.statistics().channels, layer.statistics().memberships) == (0, 0)


async def test_messages_of_the_layer_are_seen_while_handle_runs(layer: InMemoryChannelLayer) -> None:
    class Poll(Recorder):
        channel_layer = layer

        async def handle(self, body: bytes) -> None:
            self.text = ""
            self.came = trio.Event()
            await layer.send(self.channel_name, {"type": "news", "text": "hello"})
            await self.came.wait()
            await self.send_response(200, self.text.encode())

        async def news(self, event: dict[str, Any]) -> None:
            self.text = event["text"]
            self.came.set()

    assert (await HttpCommunicator(Poll.as_asgi(), "GET", "/").get_response())["body"] == b"hello"


async def test_server_sent_events_go_out_until_the_client_leaves(layer: InMemoryChannelLayer) -> None:
    class Events(Recorder):
        channel_layer = layer

        async def handle(self, body: bytes) -> None:
            await layer.group_add("news", self.channel_name)
            await self.send_headers(headers={b"content-type": b"text/event-stream"})
            await self.send_body(b"", more_body=True)

        async def news(self, event: dict[str, Any]) -> None:
            await self.send_body(b"data: %d\n\n" % event["number"], more_body=True)

    log: list[str] = []
    async with HttpCommunicator(Events.as_asgi(log=log), "GET", "/") as client:
        await client.send_request()
        assert (await client.receive_output())["status"] == 200
        assert (await client.receive_output())["more_body"]
        for number in range(3):
            await layer.group_send("news", {"type": "news", "number": number})
            assert (await client.receive_output())["body"] == b"data: %d\n\n" % number
        assert log == []
        await client.disconnect()
    assert log == ["disconnect"]
    assert (layer.statistics().channels, layer.statistics().memberships) == (0, 0)


@pytest.mark.parametrize("kind", ["handle", "send.response", "send.body", "http.request", "http.disconnect"])
async def test_layer_cannot_reach_the_consumers_own_methods(
    kind: str, layer: InMemoryChannelLayer, caplog: pytest.LogCaptureFixture
) -> None:
    class Waits(Recorder):
        channel_layer = layer

        async def handle(self, body: bytes) -> None:
            await layer.group_add("news", self.channel_name)
            await self.send_headers()
            await self.send_body(b"", more_body=True)

    log: list[str] = []
    async with HttpCommunicator(Waits.as_asgi(log=log), "GET", "/") as client:
        await client.send_request()
        await wait_all_tasks_blocked()
        await layer.group_send("news", {"type": kind, "body": b"forged"})
        await wait_all_tasks_blocked()
        assert log == []
        await client.disconnect()
    assert f"ignores a channel layer message of type {kind!r}" in caplog.text


async def test_full_mailbox_ends_a_request_in_time(
    layer: InMemoryChannelLayer, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    class Slow(Recorder):
        channel_layer = layer
        limits = Limits(disconnect_timeout=5)

        async def handle(self, body: bytes) -> None:
            await layer.group_add("news", self.channel_name)
            await self.send_headers()
            await self.send_body(b"", more_body=True)

        async def news(self, event: dict[str, Any]) -> None:
            await trio.sleep(1_000)

    log: list[str] = []
    async with HttpCommunicator(Slow.as_asgi(log=log), "GET", "/") as client:
        await client.send_request()
        await wait_all_tasks_blocked()
        for _ in range(7):
            await layer.group_send("news", {"type": "news"})
            await wait_all_tasks_blocked()
        await client.wait(timeout=100)
    assert log == ["disconnect"]
    assert trio.current_time() == pytest.approx(5)


# -- the client leaves ------------------------------------------------------------------------------------------------


class Sleeps(Recorder):
    limits = Limits(disconnect_timeout=5)

    async def handle(self, body: bytes) -> None:
        try:
            await trio.sleep(4)
            self.log.append("finished")
            await trio.sleep(4)
        finally:
            self.log.append("ended")


async def _leave_while_it_sleeps(consumer: type[Sleeps]) -> list[str]:
    log: list[str] = []
    async with HttpCommunicator(consumer.as_asgi(log=log), "GET", "/") as client:
        await client.send_request()
        await wait_all_tasks_blocked()
        await client.disconnect(timeout=100)
    return log


async def test_handle_may_finish_for_a_time_after_the_client_has_left(autojump_clock: MockClock) -> None:
    assert await _leave_while_it_sleeps(Sleeps) == ["finished", "ended", "disconnect"]
    assert trio.current_time() == pytest.approx(5)


async def test_handle_is_cancelled_at_once_with_cancel_on_disconnect(autojump_clock: MockClock) -> None:
    assert await _leave_while_it_sleeps(type("Cancels", (Sleeps,), {"cancel_on_disconnect": True})) == [
        "ended",
        "disconnect",
    ]
    assert trio.current_time() == 0


async def test_send_after_the_client_has_left_ends_handle_quietly(caplog: pytest.LogCaptureFixture) -> None:
    class Streams(Recorder):
        async def handle(self, body: bytes) -> None:
            await self.send_headers()
            while True:
                await self.send_body(b"more", more_body=True)

    log: list[str] = []
    async with HttpCommunicator(Streams.as_asgi(log=log), "GET", "/") as client:
        await client.send_request()
        await client.receive_output()
        await client.disconnect()
    assert log == ["disconnect"]
    assert caplog.records == []


async def test_handle_that_finds_the_client_gone_need_not_answer() -> None:
    class Waits(Recorder):
        async def handle(self, body: bytes) -> None:
            await wait_all_tasks_blocked()
            self.log.append("finished")

    log: list[str] = []
    await ScriptedConnection(SCOPE, [request(), GONE]).run(Waits.as_asgi(log=log))
    assert log == ["finished", "disconnect"]
