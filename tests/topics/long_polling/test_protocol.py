"""The protocol's table over long-polling: each case is as over a WebSocket, but for binary payloads."""

from __future__ import annotations

import base64
from typing import Any

from trio_channels.testing.topics import _decode

from ..cases import CASES, NO_FRAMES, Step
from ..rooms import ALL
from .client import LongPollClient, routed, served, socket_of


def in_text(frame: Any) -> Any:
    """A binary frame as the client gets it: its payload is a string, in base64."""
    if not isinstance(frame, bytes):
        return frame
    decoded = _decode(frame)
    payload = decoded.payload
    if isinstance(payload, bytes):
        payload = base64.b64encode(payload).decode()
    else:
        payload = {**payload, "response": base64.b64encode(payload["response"]).decode()}
    return [decoded.join_ref, decoded.ref, decoded.topic, decoded.event, payload]


async def test_all_cases() -> None:
    async with served(routed(socket_of(*ALL).as_asgi())) as application:
        for name, steps in CASES.items():
            client = LongPollClient(application)
            assert (await client.open()).status == 410
            for step in steps:
                assert (await client.post(step.sent)).status == 200
                check(name, step, [await client.receive() for _ in step.got])


def check(name: str, step: Step, got: list[Any]) -> None:
    wanted = [in_text(frame) for frame in step.got]
    if not step.in_order:
        got, wanted = sorted(got, key=str), sorted(wanted, key=str)
    assert (name, got) == (name, wanted)


async def test_messages_that_are_no_frames() -> None:
    async with served(routed(socket_of(*ALL).as_asgi())) as application:
        for message in filter(None, NO_FRAMES):
            client = LongPollClient(application)
            await client.open()
            assert (await client.post(message)).status in (200, 400, 410), message
            assert (await client.poll()).status == 410, message
