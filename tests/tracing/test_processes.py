"""One broadcast over two processes and Redis is one tree of spans."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ..integration.server.conftest import Server
from ..metrics.test_processes import one_in_each
from ..redis_server import RedisServer
from ..runner.serving import serving


@pytest.mark.slow
async def test_broadcast_over_two_processes_is_one_tree(redis_server: RedisServer) -> None:
    environment = {"TESTS_REDIS": redis_server.url, "TESTS_PREFIX": "tracing"}
    async with serving(
        "--workers=2", app="tests.tracing.site:application", settings="tests.metrics.settings", **environment
    ) as runner:
        await runner.said(r"Running on", 2)
        async with one_in_each(Server(await runner.port())) as clients:
            for client in clients.values():
                await client.send_message("hello")
            for client in clients.values():
                while not (await client.get_message()).endswith(" hello"):
                    pass
        # the root ends last, with its connection
        spans: dict[int, dict[str, Any]] = {}
        while not (trees := [tree for tree in trees_of(spans) if {span["name"] for span in tree} >= WHOLE]):
            texts = await runner.said(r"SPAN (.*?) NAPS", len(spans) + 1)
            spans = {span["id"]: span for span in map(json.loads, texts)}
    said = [[span for span in tree if span["name"] == "room.said"] for tree in trees]
    handlers = next(handlers for handlers in said if {span["pid"] for span in handlers} == set(clients))
    assert {spans[span["parent"]]["name"] for span in handlers} == {"group_send room.said"}


WHOLE = {"websocket chat/<str:name>/", "websocket.receive", "group_send room.said", "room.said"}


def trees_of(spans: dict[int, dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """The traces of which every span but the root has its parent."""
    traces: dict[int, list[dict[str, Any]]] = {}
    for span in spans.values():
        traces.setdefault(span["trace"], []).append(span)
    return [tree for tree in traces.values() if [s["parent"] for s in tree if s["parent"] not in spans] == [None]]
