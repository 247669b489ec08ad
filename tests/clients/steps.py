"""The steps of the table, for any client in Python, on any event loop: README.md explains them."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

Answer = list[Any]


class Channel(Protocol):
    """A topic that is being joined, or was."""

    async def next_answer(self) -> Answer:
        """The next answer to a join."""

    async def next_event(self) -> list[Any]:
        """The next event of the application, and its payload."""

    async def wait_presence(self, fits: Callable[[dict[str, list[dict[str, Any]]]], bool]) -> None:
        """Wait for a state that fits."""

    async def push(self, event: str, payload: Any, timeout: float | None) -> Answer: ...

    async def push_soon(self, event: str, payload: Any) -> None:
        """Push without waiting for the answer."""

    async def stream(self, event: str, payload: Any) -> list[Answer]: ...

    async def leave(self) -> Answer: ...

    async def wait_closed(self) -> None: ...

    def left_over(self) -> list[Any]:
        """Events that nobody has taken."""


class Socket(Protocol):
    """A socket that is connected, or will be."""

    async def join(self, topic: str, params: Any, timeout: float | None) -> Channel:
        """Begin to join."""

    async def beats(self, count: int) -> None: ...

    async def away(self) -> None: ...

    async def disconnect(self) -> None: ...

    async def ended(self) -> int | None: ...


class Client(Protocol):
    """A client, in one run of its event loop."""

    async def connect(self, *, params: dict[str, str], token: str | None, heartbeat: float | None) -> Socket: ...

    async def gather(self, calls: list[Callable[[], Awaitable[Any]]]) -> list[Any]:
        """Start all calls in this order, side by side; returns the results."""


def decoded(value: Any) -> Any:
    return bytes.fromhex(value["$bytes"]) if isinstance(value, dict) and "$bytes" in value else value


def masked(value: Any, expected: Any) -> Any:
    """The value, with "*" where "*" is expected."""
    if expected == "*":
        return "*"
    if isinstance(value, dict) and isinstance(expected, dict):
        return {key: masked(inner, expected.get(key)) for key, inner in value.items()}
    return value


def check_answer(answer: Answer, expected: list[Any]) -> None:
    if len(expected) == 1:
        assert answer[0] == expected[0]
    else:
        assert [answer[0], masked(answer[1], expected[1])] == [expected[0], decoded(expected[1])]


def sorted_metas(state: dict[str, list[dict[str, Any]]]) -> dict[str, list[str]]:
    without_ref = {
        key: [{name: value for name, value in meta.items() if name != "phx_ref"} for meta in metas]
        for key, metas in state.items()
    }
    return {key: sorted(json.dumps(meta, sort_keys=True) for meta in metas) for key, metas in without_ref.items()}


class Run:
    """One run of a case."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.sockets: dict[str, Socket] = {}
        self.channels: dict[str, Channel] = {}

    async def run(self, case: dict[str, Any]) -> None:
        for name, options in case.get("sockets", {"one": {}}).items():
            heartbeat = options.get("heartbeat")
            self.sockets[name] = await self.client.connect(
                params=options.get("params", {}),
                token=options.get("token"),
                heartbeat=heartbeat and heartbeat / 1_000,
            )
        for step in case["steps"]:
            await getattr(self, step["do"])(step)
        assert {name: channel.left_over() for name, channel in self.channels.items() if channel.left_over()} == {}

    def channel(self, step: dict[str, Any]) -> Channel:
        return self.channels[step.get("channel", "a")]

    def socket(self, step: dict[str, Any]) -> Socket:
        return self.sockets[step.get("socket", "one")]

    async def join(self, step: dict[str, Any]) -> None:
        timeout = step.get("timeout")
        channel = await self.socket(step).join(step["topic"], step.get("params", {}), timeout and timeout / 1_000)
        self.channels[step.get("channel", "a")] = channel
        check_answer(await channel.next_answer(), step["answer"])

    async def rejoined(self, step: dict[str, Any]) -> None:
        check_answer(await self.channel(step).next_answer(), step["answer"])

    async def push(self, step: dict[str, Any]) -> None:
        payload, timeout = decoded(step.get("payload", {})), step.get("timeout")
        if step["answer"] is None:
            await self.channel(step).push_soon(step["event"], payload)
        else:
            answer = await self.channel(step).push(step["event"], payload, timeout and timeout / 1_000)
            check_answer(answer, step["answer"])

    async def burst(self, step: dict[str, Any]) -> None:
        channel, order = self.channel(step), []

        async def push(number: int) -> None:
            status, response = await channel.push(step["event"], {"n": number}, None)
            order.append([status, response["n"]])

        await self.client.gather([lambda number=number: push(number) for number in range(step["count"])])  # type: ignore[misc]
        assert order == [["ok", number] for number in range(step["count"])]

    async def stream(self, step: dict[str, Any]) -> None:
        assert await self.channel(step).stream(step["event"], step["payload"]) == step["answers"]

    async def event(self, step: dict[str, Any]) -> None:
        assert await self.channel(step).next_event() == [step["event"], decoded(step["payload"])]

    async def presence(self, step: dict[str, Any]) -> None:
        expected = sorted_metas(step["state"])
        await self.channel(step).wait_presence(lambda state: sorted_metas(state) == expected)

    async def leave(self, step: dict[str, Any]) -> None:
        check_answer(await self.channel(step).leave(), step["answer"])

    async def closed(self, step: dict[str, Any]) -> None:
        await self.channel(step).wait_closed()

    async def beats(self, step: dict[str, Any]) -> None:
        await self.socket(step).beats(step["count"])

    async def away(self, step: dict[str, Any]) -> None:
        await self.socket(step).away()

    async def disconnect(self, step: dict[str, Any]) -> None:
        await self.socket(step).disconnect()

    async def ended(self, step: dict[str, Any]) -> None:
        assert await self.socket(step).ended() == step["code"]

    async def many(self, step: dict[str, Any]) -> None:
        socket, numbers = self.socket(step), range(step["count"])

        async def join(number: int) -> Channel:
            channel = await socket.join(f"{step['topic']}{number}", {}, None)
            check_answer(await channel.next_answer(), ["ok", {}])
            return channel

        channels = await self.client.gather([lambda number=number: join(number) for number in numbers])  # type: ignore[misc]
        answers = await self.client.gather(
            [lambda number=number: channels[number].push("echo", {"n": number}, None) for number in numbers]  # type: ignore[misc]
        )
        assert answers == [["ok", {"n": number}] for number in numbers]
