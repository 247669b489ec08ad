"""A client that asks for too much is refused, in words; a slow or flooding topic does not hold up the others."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from django.test import override_settings
from trio.testing import wait_all_tasks_blocked

from trio_channels.layers import InMemoryChannelLayer
from trio_channels.testing import TopicCommunicator
from trio_channels.topics import Topic, TopicSocket, event


class Room(Topic):
    pattern = "room:<slug:name>"
    gate = trio.Event()

    async def join(self, params: Any) -> None: ...

    @event("wait")
    async def wait(self, payload: Any) -> None:
        await self.gate.wait()

    @event("crash")
    async def crash(self, payload: Any) -> None:
        raise ValueError

    @event("quick")
    async def quick(self, payload: Any) -> Any:
        return payload


class Small(Room):
    pattern = "small:<slug:name>"
    pending_pushes = 2
    pushes_per_second = 0


class Slow(Room):
    pattern = "slow:<slug:name>"
    pushes_per_second = 2


class Socket(TopicSocket):
    topics = [Room, Small, Slow]
    channel_layer = InMemoryChannelLayer()


@pytest.fixture(autouse=True)
def gate(monkeypatch: pytest.MonkeyPatch) -> trio.Event:
    monkeypatch.setattr(Room, "gate", event := trio.Event())
    return event


async def test_socket_has_a_limit_of_topics() -> None:
    with override_settings(TRIO_CHANNELS={"TOPICS_PER_SOCKET": 2}):
        async with TopicCommunicator(Socket.as_asgi()) as client:
            await client.connect()
            assert [(await client.join(f"room:{name}")).status for name in "abc"] == ["ok", "ok", "error"]
            assert (await client.join("room:d")).response == {"reason": "too many topics"}
            assert (await client.join("room:a")).status == "ok"  # it is one of the two
            await client.leave("room:b")
            assert (await client.receive_event("room:b")).event == "phx_close"
            assert (await client.join("room:c")).status == "ok"
            await client.disconnect()


@pytest.mark.parametrize(("topic", "limit"), [("room:a", 5), ("small:a", 2)])
async def test_topic_has_a_limit_of_pushes_that_wait(topic: str, limit: int, gate: trio.Event) -> None:
    with override_settings(TRIO_CHANNELS={"TOPIC_PENDING_PUSHES": 5}):
        async with TopicCommunicator(Socket.as_asgi()) as client:
            await client.connect()
            await client.join(topic)
            await client.send_push(topic, "wait")
            await wait_all_tasks_blocked()
            refs = [await client.send_push(topic, "quick") for _ in range(limit)]
            assert (await client.push(topic, "quick")).response == {"reason": "too many pushes are waiting"}
            gate.set()
            assert [(await client.receive_reply(ref)).status for ref in refs] == ["ok"] * limit
            assert (await client.push(topic, "quick")).status == "ok"
            await client.disconnect()


@pytest.mark.parametrize(("topic", "limit"), [("room:a", 3), ("slow:a", 2)])
async def test_topic_has_a_limit_of_pushes_in_a_second(
    topic: str, limit: int, autojump_clock: trio.testing.MockClock
) -> None:
    with override_settings(TRIO_CHANNELS={"TOPIC_PUSHES_PER_SECOND": 3}):
        async with TopicCommunicator(Socket.as_asgi()) as client:
            await client.connect()
            await client.join(topic)
            await trio.sleep(2)
            for _ in range(2):
                replies = [await client.push(topic, "quick") for _ in range(limit + 1)]
                assert [reply.status for reply in replies] == ["ok"] * limit + ["error"]
                assert replies[-1].response == {"reason": "too many pushes in a second"}
                await trio.sleep(2)
            await client.disconnect()


async def test_socket_has_a_limit_of_bytes_that_wait(gate: trio.Event) -> None:
    with override_settings(TRIO_CHANNELS={"TOPIC_PENDING_BYTES": 1_000}):
        async with TopicCommunicator(Socket.as_asgi()) as client:
            await client.connect()
            await client.join("room:a", {"long": "x" * 5_000})  # alone it has room, and is not kept
            await client.join("room:b")
            ref = await client.send_push("room:a", "wait", "x" * 5_000)
            await wait_all_tasks_blocked()
            refused = ("error", {"reason": "too many pushes are waiting"})
            assert await client.push("room:b", "quick") == refused
            assert await client.push("room:c", "phx_join") == refused
            gate.set()
            assert (await client.receive_reply(ref)).status == "ok"
            assert (await client.push("room:b", "quick", "x" * 5_000)).status == "ok"
            await client.disconnect()


async def test_refused_joins_take_no_room() -> None:
    with override_settings(TRIO_CHANNELS={"TOPIC_PENDING_BYTES": 1_000, "TOPICS_PER_SOCKET": 1}):
        async with TopicCommunicator(Socket.as_asgi()) as client:
            await client.connect()
            await client.join("room:a")
            for _ in range(5):
                assert (await client.join("room:b", "x" * 400)).response == {"reason": "too many topics"}
            assert (await client.push("room:a", "quick", "x" * 400)).status == "ok"
            await client.disconnect()


@pytest.mark.parametrize("end", ["phx_leave", "phx_join", "crash"])
async def test_bytes_of_a_topic_that_ends_are_free_again(end: str, gate: trio.Event) -> None:
    with override_settings(TRIO_CHANNELS={"TOPIC_PENDING_BYTES": 1_000}):
        async with TopicCommunicator(Socket.as_asgi()) as client:
            await client.connect()
            await client.join("room:a")
            await client.join("room:b")
            await client.send_push("room:a", "crash" if end == "crash" else "wait", "x" * 300)
            await client.send_push("room:a", "wait", "x" * 300)
            await wait_all_tasks_blocked()
            if end != "crash":
                client._join_refs["room:a"] = "1" if end == "phx_leave" else str(client._last_ref + 1)
                await client.send_push("room:a", end)
                gate.set()
            await wait_all_tasks_blocked()
            assert (await client.push("room:b", "quick", "x" * 900)).status == "ok"
            await client.disconnect()


async def test_flooding_topic_does_not_hold_up_others(gate: trio.Event) -> None:
    async with TopicCommunicator(Socket.as_asgi()) as client:
        await client.connect()
        await client.join("room:flood")
        await client.join("room:calm")
        await client.send_push("room:flood", "wait")
        for _ in range(1_000):
            await client.send_push("room:flood", "wait")
        assert (await client.push("room:calm", "quick", {"n": 1})).response == {"n": 1}
        refused = [frame for frame in client._frames if frame.payload["status"] == "error"]
        assert len(refused) in (1_000 - 64, 1_000 - 63)
        gate.set()
        await client.disconnect()


async def test_flood_of_pushes_without_reference_is_silent(gate: trio.Event) -> None:
    async with TopicCommunicator(Socket.as_asgi()) as client:
        await client.connect()
        await client.join("room:flood")
        for _ in range(200):
            await client.send_json_to(["1", None, "room:flood", "wait", {}])
        await client.push("phoenix", "heartbeat")
        assert not client._frames
        gate.set()
        await client.disconnect()


async def test_a_thousand_topics_on_one_socket() -> None:
    async with TopicCommunicator(Socket.as_asgi()) as client:
        await client.connect()
        names = [f"room:{number}" for number in range(1_000)]
        refs = [await client.send_push(name, "phx_join") for name in names]
        assert {(await client.receive_reply(ref)).status for ref in refs} == {"ok"}
        assert (await client.join("room:one-more")).response == {"reason": "too many topics"}
        await client.disconnect()
    assert Socket.channel_layer.statistics().memberships == 0
