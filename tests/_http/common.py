"""Helpers shared by the tests of the HTTP handler."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import trio

from trio_channels.asgi import get_asgi_application
from trio_channels.testing import HttpCommunicator

#: The signals' receivers in this module leave nothing on a thread, so no request holds a thread for them.
NEUTRAL = {"THREAD_NEUTRAL": [__name__]}


class Signals:
    """How often each of Django's two signals was sent."""

    def __init__(self) -> None:
        self.sent: list[str] = []

    def started(self, **kwargs: Any) -> None:
        self.sent.append("started")

    def finished(self, **kwargs: Any) -> None:
        self.sent.append("finished")


class PatientCommunicator(HttpCommunicator):
    """Waits as long as a busy machine may need."""

    async def receive_output(self, timeout: float = 30) -> dict[str, Any]:
        return await super().receive_output(timeout)

    async def get_response(self, timeout: float = 30) -> dict[str, Any]:
        return await super().get_response(timeout)

    async def wait(self, timeout: float = 30) -> None:
        await super().wait(timeout)

    async def disconnect(self, timeout: float = 30) -> None:
        await super().disconnect(timeout)


def client(where: str, method: str = "GET", body: bytes = b"", headers: Any = ()) -> HttpCommunicator:
    return PatientCommunicator(get_asgi_application(), method, where, body, headers)


async def fetch(where: str, method: str = "GET", body: bytes = b"", headers: Any = ()) -> dict[str, Any]:
    async with client(where, method, body, headers) as http:
        return await http.get_response(timeout=30)


def header(response: dict[str, Any], name: str) -> bytes | None:
    found = [value for key, value in response["headers"] if key.lower() == name.lower().encode()]
    return found[0] if found else None


async def until(condition: Callable[[], object]) -> None:
    """Wait for a condition that a worker thread brings about."""
    with trio.fail_after(30):
        while not condition():
            await trio.lowlevel.checkpoint()
