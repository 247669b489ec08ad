"""One case of the clients' table through ``phoenix-channels-python-client``: its arguments are the port and the case.

The client is on asyncio, so it runs in a process of its own. It has no call for a push: one sends a frame by its
protocol handler, and finds the replies among the topic's messages. It does not show the replies to joins.
"""

from __future__ import annotations

import asyncio
import sys
from collections import defaultdict
from collections.abc import Awaitable, Callable
from typing import Any

from phoenix_channels_python_client import PHXChannelsClient, ReconnectPolicy
from phoenix_channels_python_client.exceptions import PHXTopicError
from phoenix_channels_python_client.utils import make_message

from tests.clients.steps import Run
from tests.clients.table import CASES

AT_ONCE = ReconnectPolicy(
    base_delay_s=0.01,
    max_delay_s=0.01,
    service_restart_min_delay_s=0,
    service_restart_max_delay_s=0.01,
    try_again_later_min_delay_s=0,
    try_again_later_max_delay_s=0.01,
    rapid_first_min_delay_s=0,
    rapid_second_min_delay_s=0,
    rapid_cooldown_base_s=0,
    rapid_cooldown_step_s=0,
    rapid_cooldown_max_s=0,
)


async def wait_until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110 - the client has no event for it
        await asyncio.sleep(0.002)


class Channel:
    def __init__(self, client: PHXChannelsClient, topic: str) -> None:
        self.client, self.topic = client, topic
        self.events: asyncio.Queue[list[Any]] = asyncio.Queue()
        self.replies: dict[str, asyncio.Queue[list[Any]]] = defaultdict(asyncio.Queue)
        self.join_ref: str | None = None
        self.refused: str | None = None

    async def join(self) -> None:
        try:
            await self.client.subscribe_to_topic(self.topic, self.take)
        except PHXTopicError as error:
            self.refused = str(error)

    async def take(self, message: Any) -> None:
        if str(message.event) == "phx_reply":
            self.replies[message.ref].put_nowait([message.payload["status"], message.payload["response"]])
        else:
            self.events.put_nowait([message.event, message.payload])

    async def next_answer(self) -> list[Any]:
        if self.refused is not None:
            return ["error", {"reason": self.refused}]
        await wait_until(lambda: self.client.is_topic_joined(self.topic) and self.ref() != self.join_ref)
        self.join_ref = self.ref()
        return ["ok", {}]

    def ref(self) -> str:
        return str(self.client.get_current_subscriptions()[self.topic].join_ref)

    async def next_event(self) -> list[Any]:
        return await self.events.get()

    async def push_soon(self, event: str, payload: Any) -> str:
        ref = self.client._generate_ref()
        message = make_message(event, self.topic, ref, payload, self.join_ref)
        assert self.client.connection is not None
        await self.client.get_protocol_handler().send_message(self.client.connection, message)
        return ref

    async def push(self, event: str, payload: Any, timeout: float | None) -> list[Any]:
        ref = await self.push_soon(event, payload)
        try:
            return await asyncio.wait_for(self.replies[ref].get(), timeout)
        except TimeoutError:
            return ["timeout", None]

    async def leave(self) -> list[Any]:
        await self.client.unsubscribe_from_topic(self.topic)
        return ["ok", {}]

    async def wait_closed(self) -> None:
        await wait_until(lambda: self.topic not in self.client.get_current_subscriptions())

    def left_over(self) -> list[Any]:
        return list(self.events._queue)  # type: ignore[attr-defined]


class Socket:
    def __init__(self, address: str, heartbeat: float | None) -> None:
        self.acknowledged = 0
        self.client = PHXChannelsClient(
            address,
            "",
            reconnect_policy=AT_ONCE,
            heartbeat_interval_s=heartbeat or 30.0,
            heartbeat_dead_threshold_s=(heartbeat or 30.0) * 2,
            on_heartbeat_ack=self.acknowledge,
        )

    def acknowledge(self) -> None:
        self.acknowledged += 1

    async def join(self, topic: str, params: Any, timeout: float | None) -> Channel:
        assert params == {}
        channel = Channel(self.client, topic)
        await channel.join()
        return channel

    async def beats(self, count: int) -> None:
        await wait_until(lambda: self.acknowledged >= count)


class Client:
    def __init__(self, address: str) -> None:
        self.address = address
        self.sockets: list[Socket] = []

    async def connect(self, *, params: dict[str, str], token: str | None, heartbeat: float | None) -> Socket:
        socket = Socket(self.address, heartbeat)
        await socket.client.__aenter__()
        self.sockets.append(socket)
        return socket

    async def gather(self, calls: list[Callable[[], Awaitable[Any]]]) -> list[Any]:
        return await asyncio.gather(*[call() for call in calls])


async def main() -> None:
    _, port, name = sys.argv
    client = Client(f"ws://127.0.0.1:{port}/socket/websocket")
    await Run(client).run(CASES[name])  # type: ignore[arg-type]
    for socket in client.sockets:
        await socket.client.shutdown("the case has ended")
    print("passed")


if __name__ == "__main__":
    asyncio.run(main())
