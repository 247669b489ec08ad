"""Presence, in the form that the clients of the protocol know."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio

from trio_channels.exceptions import ChannelLayerUnavailable
from trio_channels.layers import InMemoryChannelLayer
from trio_channels.testing import TopicCommunicator
from trio_channels.topics import Topic, TopicSocket, event

A = "room:a"


class Room(Topic):
    pattern = "room:<slug:name>"
    shows_presence = True

    async def join(self, params: dict[str, Any]) -> None:
        if "key" in params:
            await self.track(params["key"], params.get("meta"))

    @event("update")
    async def update(self, payload: dict[str, Any]) -> None:
        await self.track(payload["key"], payload["meta"])

    @event("untrack")
    async def end(self, payload: str) -> None:
        await self.untrack(payload)

    @event("who")
    async def who(self, payload: Any) -> list[str]:
        return sorted(await self.presence())


def socket(topic: type[Topic] = Room, **attributes: Any) -> Any:
    return type("Socket", (TopicSocket,), {"channel_layer": InMemoryChannelLayer(), "topics": [topic], **attributes})


@asynccontextmanager
async def connected(cls: Any) -> AsyncIterator[TopicCommunicator]:
    async with TopicCommunicator(cls.as_asgi()) as client:
        await client.connect()
        yield client
        await client.disconnect()


def metas(keys: dict[str, Any]) -> dict[str, Any]:
    """The metas by key, without their references, which must be there and unique."""
    refs = [meta.pop("phx_ref") for key in keys.values() for meta in key["metas"]]
    assert len(set(refs)) == len(refs)
    assert all(isinstance(ref, str) for ref in refs)
    return {key: value["metas"] for key, value in keys.items()}


async def diff(client: TopicCommunicator, topic: str = A) -> tuple[dict[str, Any], dict[str, Any]]:
    frame = await client.receive_event(topic, "presence_diff")
    assert (frame.join_ref, frame.ref) == (None, None)
    assert set(frame.payload) == {"joins", "leaves"}
    return metas(frame.payload["joins"]), metas(frame.payload["leaves"])


async def state(client: TopicCommunicator) -> dict[str, Any]:
    return metas((await client.receive_event(A, "presence_state")).payload)


async def test_state_comes_right_after_the_reply() -> None:
    cls = socket()
    async with connected(cls) as ada, connected(cls) as bob:
        await ada.join(A, {"key": "ada", "meta": {"at": 1}})
        assert await state(ada) == {"ada": [{"at": 1}]}
        ref = await bob.send_push(A, "phx_join", {"key": "bob"})
        assert (await bob.receive_frame()).ref == ref
        assert await state(bob) == {"ada": [{"at": 1}], "bob": [{}]}
        assert await diff(ada) == ({"bob": [{}]}, {})
        assert (await ada.push(A, "who")).response == ["ada", "bob"]


async def test_every_change_is_told() -> None:
    cls = socket()
    async with connected(cls) as ada, connected(cls) as bob:
        await ada.join(A, {})
        assert await state(ada) == {}
        await bob.join(A, {"key": "bob", "meta": {"n": 1}})
        assert await diff(ada) == ({"bob": [{"n": 1}]}, {})
        await bob.push(A, "update", {"key": "bob", "meta": {"n": 2}})
        assert await diff(ada) == ({"bob": [{"n": 2}]}, {"bob": [{"n": 1}]})
        await bob.push(A, "untrack", "bob")
        assert await diff(ada) == ({}, {"bob": [{"n": 2}]})
        await bob.push(A, "untrack", "bob")
        await bob.push(A, "update", {"key": "x", "meta": {}})
        assert await diff(ada) == ({"x": [{}]}, {})


@pytest.mark.parametrize("way", ["leave", "disconnect", "join again"])
async def test_presence_ends_with_the_topic(way: str) -> None:
    cls = socket()
    async with connected(cls) as ada:
        await ada.join(A, {})
        async with connected(cls) as bob:
            await bob.join(A, {"key": "bob"})
            assert await diff(ada) == ({"bob": [{}]}, {})
            if way == "leave":
                await bob.leave(A)
            elif way == "join again":
                await bob.join(A, {})
        assert await diff(ada) == ({}, {"bob": [{}]})
        assert cls.channel_layer.statistics().tracked == 0


async def test_topics_of_a_socket_have_a_presence_each() -> None:
    cls = socket()
    async with connected(cls) as ada, connected(cls) as bob:
        await ada.join(A, {"key": "ada"})
        await ada.join("room:b", {"key": "ada"})
        await bob.join("room:b", {"key": "bob"})
        assert await diff(ada, "room:b") == ({"bob": [{}]}, {})
        await bob.leave("room:b")
        assert await diff(ada, "room:b") == ({}, {"bob": [{}]})
        await ada.push(A, "who")
        assert [frame.event for frame in ada._frames if frame.topic == A] == ["presence_state"]


async def test_topic_that_does_not_show_presence_tells_nothing() -> None:
    class Silent(Room):
        shows_presence = False

    cls = socket(Silent)
    async with connected(cls) as ada, connected(cls) as bob:
        await ada.join(A, {"key": "ada"})
        await bob.join(A, {"key": "bob"})
        assert (await ada.push(A, "who")).response == ["ada", "bob"]
        assert list(ada._frames) == []


async def test_changes_during_the_join_follow_the_state() -> None:
    begun, end = trio.Event(), trio.Event()

    class Layer(InMemoryChannelLayer):
        async def watch_presence(self, group: str, channel: str) -> Any:
            found = await super().watch_presence(group, channel)
            begun.set()
            await end.wait()
            return found

    cls = socket(channel_layer=Layer())
    async with connected(cls) as ada:
        await ada.send_push(A, "phx_join", {"key": "ada"})
        await begun.wait()
        async with cls.channel_layer.track("topic.room.a", "bob"):
            await trio.testing.wait_all_tasks_blocked(0.2)
            end.set()
            events = [(await ada.receive_frame()).event for _ in range(3)]
        assert events == ["phx_reply", "presence_state", "presence_diff"]


async def test_join_without_the_presence_is_refused(caplog: pytest.LogCaptureFixture) -> None:
    left: list[str] = []

    class Layer(InMemoryChannelLayer):
        async def watch_presence(self, group: str, channel: str) -> Any:
            raise ChannelLayerUnavailable("away")

    class Leaving(Room):
        async def leave(self) -> None:
            left.append(self.topic)

    cls = socket(Leaving, channel_layer=Layer())
    async with connected(cls) as ada:
        assert await ada.join(A, {}) == ("error", {"reason": "unavailable"})
    assert left == [A]
    assert len(caplog.records) == 1


async def test_presence_needs_a_layer(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr("trio_channels.consumer.base.get_channel_layer", lambda alias: None)
    async with connected(socket(channel_layer=None)) as ada:
        assert (await ada.join(A, {})).response == {"reason": "join crashed"}
    assert "presence needs a channel layer" in caplog.text


async def test_diffs_of_the_socket_itself_are_its_own() -> None:
    seen: list[Any] = []

    class Socket(TopicSocket):
        channel_layer = InMemoryChannelLayer()
        topics = [Room]

        async def connect(self) -> None:
            await self.watch_presence("all")
            await super().connect()

        async def presence_diff(self, event: dict[str, Any]) -> None:
            seen.append(sorted(event["joins"]))

    async with connected(Socket) as client:
        async with Socket.channel_layer.track("all", "ada"):
            await trio.testing.wait_all_tasks_blocked()
        await client.push("phoenix", "heartbeat")
    assert seen[0] == ["ada"]
