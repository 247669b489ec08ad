"""Every message of the protocol: through the communicator, and over a real socket."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
from trio_websocket import ConnectionClosed

from trio_channels.layers import InMemoryChannelLayer
from trio_channels.routing import ProtocolTypeRouter
from trio_channels.testing import WebsocketCommunicator
from trio_channels.topics import TopicSocket

from ..server.clients import OURS, serving
from .cases import CASES, NO_FRAMES, Step
from .rooms import ALL

PATH = "/socket/websocket?vsn=2.0.0"


class Socket(TopicSocket):
    topics = ALL
    channel_layer = InMemoryChannelLayer()


@pytest.fixture(autouse=True)
def no_errors_of_the_server(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    yield
    assert [record for record in caplog.records if record.name != "trio_channels.topics"] == []


def encoded(frame: Any) -> str | bytes:
    return frame if isinstance(frame, bytes) else json.dumps(frame)


def decoded(message: str | bytes) -> Any:
    return message if isinstance(message, bytes) else json.loads(message)


def check(step: Step, got: list[Any]) -> None:
    assert (got if step.in_order else sorted(got, key=str)) == (
        step.got if step.in_order else sorted(step.got, key=str)
    )


@pytest.mark.parametrize("steps", CASES.values(), ids=CASES)
async def test_case_through_the_communicator(steps: list[Step]) -> None:
    async with WebsocketCommunicator(Socket.as_asgi(), PATH) as client:
        assert await client.connect() == (True, None)
        for step in steps:
            message = encoded(step.sent)
            await client.send_to(**{"bytes_data" if isinstance(message, bytes) else "text_data": message})
            check(step, [decoded(await client.receive_from()) for _ in step.got])
        await client.disconnect()


async def test_all_cases_over_real_sockets() -> None:
    async with serving(OURS, ProtocolTypeRouter({"websocket": Socket.as_asgi()})) as server:
        for steps in CASES.values():
            async with server.websocket(PATH) as client:
                for step in steps:
                    await client.send_message(encoded(step.sent))
                    check(step, [decoded(await client.get_message()) for _ in step.got])


@pytest.mark.parametrize("message", NO_FRAMES, ids=lambda message: repr(message[:30]))
async def test_message_that_is_no_frame_closes_the_socket(
    message: str | bytes, caplog: pytest.LogCaptureFixture
) -> None:
    async with WebsocketCommunicator(Socket.as_asgi(), PATH) as client:
        await client.connect()
        await client.send_to(**{"bytes_data" if isinstance(message, bytes) else "text_data": message})
        closed = await client.receive_output()
        assert (closed["type"], closed["code"]) == ("websocket.close", 1007)
        await client.wait()
    assert caplog.records == []


async def test_message_that_is_no_frame_closes_a_real_socket() -> None:
    async with (
        serving(OURS, ProtocolTypeRouter({"websocket": Socket.as_asgi()})) as server,
        server.websocket(PATH) as client,
    ):
        await client.send_message("no frame")
        with pytest.raises(ConnectionClosed) as closed:
            await client.get_message()
        assert (closed.value.reason.code, closed.value.reason.reason) == (
            1007,
            "expected [join_ref, ref, topic, event, payload]",
        )


@pytest.mark.parametrize(
    ("sent", "lines"),
    [
        (["1", "1", "room:a", "phx_join", {"crash": 1}], ["ValueError: crash in join", "in join()"]),
        (["1", "1", "room:a", "phx_join", {"away": 1}], []),
        (["1", "1", "room:a", "phx_join", {"refuse": ""}], None),
        (["1", "1", "typed", "phx_join", {}], None),
    ],
)
async def test_failed_join_is_logged_once(sent: Any, lines: list[str] | None, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        async with WebsocketCommunicator(Socket.as_asgi(), PATH) as client:
            await client.connect()
            await client.send_json_to(sent)
            await client.receive_from()
            await client.disconnect()
    records = [record for record in caplog.records if record.name == "trio_channels.topics"]
    assert len(records) == (lines is not None)
    for record in records:
        assert "the topic 'room:a' of websocket /socket/websocket" in record.getMessage()
        text = logging.Formatter().format(record)
        assert ("Traceback" in text) == bool(lines)
        assert all(line in text for line in lines or ())
