"""Members of P3's group, and the process that has them.

``python -m benchmarks._redis_receiver <world> <url> <descriptor> <members> <portion> <portions to warm up>``; the
descriptor is a socket's, shared with other receivers: a byte is written to it when the members are there, and one after
each portion of deliveries. When the socket's other end is closed the process tells what it took of the processor since
the warm-up, and ends.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import time
from collections.abc import Callable
from typing import Any

from ._redis_worlds import WORLDS, Take


def message(sender: int, number: int) -> dict[str, Any]:
    """What is sent: about 100 bytes."""
    return {"type": "chat.message", "sender": sender, "number": number, "text": "hello, everybody in the room" * 2}


class Audience:
    """Counts what the members of one process get, each sender's messages in order.

    Args:
        portion: deliveries, of all members together, after which `report` is called.
    """

    def __init__(self, portion: int, report: Callable[[], object]) -> None:
        self._portion = portion
        self._missing = portion
        self.report = report

    def member(self) -> Take:
        """What a new member does with a message.

        Raises:
            RuntimeError: one was lost, doubled, or overtaken by another of its sender.
        """
        expected: dict[int, int] = {}

        def take(message: dict[str, Any]) -> None:
            sender, number = message["sender"], message["number"]
            if number != expected.get(sender, 0):
                raise RuntimeError(f"expected number {expected.get(sender, 0)} of sender {sender}; got {number}")
            expected[sender] = number + 1
            self._missing -= 1
            if self._missing == 0:
                self._missing = self._portion
                self.report()

        return take


def main(name: str, url: str, pipe: socket.socket, members: int, portion: int, warm_up: int) -> None:
    """Have the members, until the other end of the pipe is closed."""
    world = WORLDS[name](url)
    portions = 0
    started = 0.0

    def report() -> None:
        nonlocal portions, started
        pipe.send(b".")
        portions += 1
        if portions == warm_up:
            started = time.process_time()

    async def program() -> None:
        audience = Audience(portion, report)
        async with world.members(audience.member, members):
            pipe.send(b".")
            await world.read(pipe)
            print(json.dumps(time.process_time() - started), flush=True)
            os._exit(0)  # the Redis ends with the side: there is nothing to leave in order, which takes a while

    world.run(program)


if __name__ == "__main__":
    world_name, redis, descriptor, *numbers = sys.argv[1:]
    with socket.socket(fileno=int(descriptor)) as shared:
        shared.setblocking(False)
        main(world_name, redis, shared, *map(int, numbers))
