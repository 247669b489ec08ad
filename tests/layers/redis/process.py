"""A second process that runs the layer, and its parent's side.

The child prints lines of JSON: ``came`` when all its members have a message, ``sent`` before and ``done`` after each of
its messages, ``report`` with all items of its members. It obeys ``publish``, ``await`` and ``report``. It ends with its
input.
"""

from __future__ import annotations

import functools
import json
import os
import signal
import subprocess
import sys
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import trio

from trio_channels.exceptions import ChannelLayerUnavailable
from trio_channels.layers.base import Gap
from trio_channels.layers.redis import RedisStreamsChannelLayer, keys

from ...faults.checker import DeliveryChecker

GROUP = "room"


def say(what: str, **more: Any) -> None:
    print(json.dumps({"what": what, **more}), flush=True)


class Child:
    """The other process, from inside."""

    def __init__(self, name: str, members: int) -> None:
        self._name = name
        self._items: list[list[dict[str, Any]]] = [[] for _ in range(members)]
        self._last: defaultdict[str, list[int]] = defaultdict(lambda: [-1] * members)
        self._awaited: dict[str, int] = {}
        self._number = 0

    async def main(self, layer: RedisStreamsChannelLayer) -> None:
        async with trio.open_nursery() as nursery, layer:
            for number in range(len(self._items)):
                await nursery.start(self._member, layer, number)
            say("ready", process=layer._session().process)
            async for line in _lines(trio.lowlevel.FdStream(os.dup(0))):
                self._obey(json.loads(line), layer, nursery)
            nursery.cancel_scope.cancel()

    def _obey(self, order: dict[str, Any], layer: RedisStreamsChannelLayer, nursery: trio.Nursery) -> None:
        if order["what"] == "publish":
            nursery.start_soon(self._publish, layer, order["count"])
        elif order["what"] == "await":
            self._awaited[order["publisher"]] = order["n"]
            self._look(order["publisher"])
        else:
            # Members of one process mostly have the same items: report equal lists once.
            different = {json.dumps(items): items for items in self._items}
            places = {text: place for place, text in enumerate(different)}
            say("report", items=list(different.values()), who=[places[json.dumps(items)] for items in self._items])

    async def _publish(self, layer: RedisStreamsChannelLayer, count: int) -> None:
        for _ in range(count):
            n, self._number = self._number, self._number + 1
            say("sent", n=n)
            try:
                await layer.group_send(GROUP, {"type": "stamped", "publisher": self._name, "group": GROUP, "n": n})
                say("done", n=n)
            except ChannelLayerUnavailable:
                say("raised", n=n)
        say("published")

    async def _member(self, layer: RedisStreamsChannelLayer, number: int, task_status: trio.TaskStatus[None]) -> None:
        async with layer.subscribe(GROUP) as events:
            task_status.started()
            async for item in events:
                if isinstance(item, Gap):
                    self._items[number].append(item.as_event())
                else:
                    self._items[number].append(item)
                    self._last[item["publisher"]][number] = item["n"]
                    self._look(item["publisher"])

    def _look(self, publisher: str) -> None:
        awaited = self._awaited.get(publisher)
        if awaited is not None and min(self._last[publisher]) >= awaited:
            del self._awaited[publisher]
            say("came", publisher=publisher, n=awaited)


async def _lines(stream: trio.abc.ReceiveStream) -> AsyncIterator[bytes]:
    rest = b""
    async for data in stream:
        *whole, rest = (rest + bytes(data)).split(b"\n")
        for line in whole:
            yield line


class OtherProcess:
    """The other process, from outside.

    Attributes:
        process: its id in the layer.
        items: the items of its members, after :meth:`report`.
    """

    def __init__(self, checker: DeliveryChecker, name: str, members: int, child: trio.Process) -> None:
        self.process = ""
        self.items: list[list[dict[str, Any]]] = []
        self.came: dict[str, int] = {}
        self.ready = trio.Event()
        self.published = trio.Event()
        self.name = name
        self._checker = checker
        self._child = child
        self._reported = trio.Event()
        self._receivers = [checker.receiver(f"{name}-m{number}", GROUP) for number in range(members)]

    async def tell(self, what: str, **more: Any) -> None:
        """Send it an order."""
        assert self._child.stdin is not None
        await self._child.stdin.send_all(json.dumps({"what": what, **more}).encode() + b"\n")

    def kill(self, number: signal.Signals = signal.SIGKILL) -> None:
        """Send it a signal."""
        self._child.send_signal(number)

    def forget_members(self) -> None:
        """Forget a dead process's members: nobody can report their items. Its unfinished sends may have arrived."""
        for receiver in self._receivers:
            self._checker.receivers.remove(receiver)

    async def report(self) -> None:
        """Show the checker the items of its members."""
        await self.tell("report")
        with trio.fail_after(30):
            await self._reported.wait()
        for receiver, items in zip(self._receivers, self.items, strict=True):
            for item in items:
                receiver.got(item)

    async def listen(self) -> None:
        assert self._child.stdout is not None
        async for line in _lines(self._child.stdout):
            message = json.loads(line)
            self._hear(message)

    def _hear(self, message: dict[str, Any]) -> None:
        match message["what"]:
            case "ready":
                self.process = message["process"]
                self.ready.set()
            case "sent":
                # Until ``done`` the message counts as one whose publish raised: it may arrive or not.
                self._checker.raised(self._checker.stamp(self.name, GROUP))
            case "done":
                self._checker.streams[self.name, GROUP].raised.discard(message["n"])
            case "came":
                self.came[message["publisher"]] = message["n"]
            case "published":
                self.published.set()
            case "report":
                self.items = [message["items"][place] for place in message["who"]]
                self._reported.set()


@asynccontextmanager
async def other_process(
    checker: DeliveryChecker, url: str, *, name: str, members: int, **options: Any
) -> AsyncIterator[OtherProcess]:
    """A second process with `members` members on the layer, until the end of the block."""
    setup = json.dumps({"url": url, "name": name, "members": members, "lease": keys.LEASE, "options": options})
    command = [sys.executable, "-m", "tests.layers.redis.process", setup]
    async with trio.open_nursery() as nursery:
        child: trio.Process = await nursery.start(
            functools.partial(trio.run_process, command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, check=False)
        )
        other = OtherProcess(checker, name, members, child)
        nursery.start_soon(other.listen)
        try:
            with trio.fail_after(30):
                await other.ready.wait()
            yield other
        finally:
            child.kill()
            nursery.cancel_scope.cancel()


def main() -> None:
    setup = json.loads(sys.argv[1])
    keys.LEASE = setup["lease"]
    options = {"capacity": 100_000, "overflow": "drop_newest"} | setup["options"]
    layer = RedisStreamsChannelLayer(hosts=[setup["url"]], **options)
    trio.run(Child(setup["name"], setup["members"]).main, layer)


if __name__ == "__main__":
    main()
