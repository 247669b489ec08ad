"""Addresses, tokens, delays and codes."""

from __future__ import annotations

from typing import Any

import pytest

from trio_channels.client import back_off, connect, is_final
from trio_channels.client.coming_back import is_final_status
from trio_channels.exceptions import ConfigurationError

from .scripted import connecting, scripted


async def address_of(url: str, **options: Any) -> str:
    with pytest.raises(Exception, match="cannot be reached") as failed:
        async with connect(url, **options):
            pass
    return str(failed.value).split()[0]


@pytest.mark.parametrize(
    "end", ["/socket", "/socket/", "/socket/websocket", "/socket?x=1", "/socket/websocket?x=1"], ids=repr
)
async def test_path_ends_with_websocket(end: str) -> None:
    assert await address_of(f"ws://127.0.0.1:1{end}") == "ws://127.0.0.1:1/socket/websocket"


@pytest.mark.parametrize(
    "url", ["", "http://a/", "ws://", "ws://user:secret@a/", "ws://a:99999/", "ws://a/#f", "/socket", "ws://[::1"]
)
async def test_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(ConfigurationError, match="expected an address such as"):
        async with connect(url):
            pass


@pytest.mark.parametrize("name", ["timeout", "heartbeat", "max_waiting", "capacity", "max_message_size"])
@pytest.mark.parametrize("value", [0, -1, "1", None, float("nan")])
async def test_number_that_is_none_is_refused(name: str, value: Any) -> None:
    options: Any = {name: value}
    with pytest.raises(ConfigurationError, match=name):
        async with connect("ws://127.0.0.1:1/", **options):
            pass


async def test_params_and_token_are_asked_for_each_time() -> None:
    asked: list[str] = []

    def ask(name: str) -> str:
        asked.append(name)
        return f"{name} {len(asked)}?"

    async with (
        scripted() as server,
        connecting(server, params=lambda: {"user": ask("ada")}, token=lambda: ask("é")),
    ):
        peer = await server.peer()
        assert peer.websocket.path == "/socket/websocket?user=ada+1%3F&vsn=2.0.0"
        assert peer.websocket.subprotocol == "phoenix"
        await peer.close()
        assert (await server.peer()).websocket.path == "/socket/websocket?user=ada+3%3F&vsn=2.0.0"
    assert asked == ["ada", "é", "ada", "é"]


def test_delays_double_up_to_the_longest() -> None:
    for attempt, (least, most) in {1: (0.5, 1), 2: (1, 2), 5: (8, 16), 6: (15, 30), 1_000: (15, 30)}.items():
        delays = [back_off(attempt) for _ in range(200)]
        assert least <= min(delays) < max(delays) <= most
        assert len(set(delays)) > 1


@pytest.mark.parametrize(("code", "least", "most"), [(1012, 1, 5), (1013, 5, 15)])
def test_code_of_a_restart_asks_for_time(code: int, least: float, most: float) -> None:
    delays = [back_off(1, code) for _ in range(200)]
    assert least <= min(delays)
    assert most - 1 < max(delays) <= most
    assert 15 <= back_off(9, code) <= 30


def test_codes_of_applications_are_final() -> None:
    assert [code for code in range(1000, 5000) if is_final(code)] == list(range(4000, 5000))


def test_statuses_that_say_no_are_final() -> None:
    final = [
        status for status in (None, 200, 301, 400, 401, 403, 404, 408, 425, 429, 500, 503) if is_final_status(status)
    ]
    assert final == [400, 401, 403, 404]
