"""A process with members of P3's group.

``python -m benchmarks._redis_receiver <world> <url> <descriptor> <members> <portion> <portions to warm up>``: the
descriptor is a socket that several receivers share. The process writes a byte to it when its members have joined, and
one after each portion of deliveries. When the other end closes, the process prints its processor time since the
warm-up, in seconds, and ends.
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
    """A message of about 100 bytes."""
    return {"type": "chat.message", "sender": sender, "number": number, "text": "hello, everybody in the room" * 2}


class Audience:
    """Counts the deliveries to the members of one process, and checks their order.

    Args:
        portion: the number of deliveries, to all members together, after which `report` is called.
        report: the function to call.
    """

    def __init__(self, portion: int, report: Callable[[], object]) -> None:
        self._portion = portion
        self._missing = portion
        self.report = report

    def member(self) -> Take:
        """The message handler of a new member. It raises RuntimeError if a message is lost, doubled or out of order."""
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
    """Run the members until the other end of the pipe closes."""
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
            os._exit(0)  # skips the clean-up, which takes a while: this Redis ends with the side

    world.run(program)


if __name__ == "__main__":
    world_name, redis, descriptor, *numbers = sys.argv[1:]
    with socket.socket(fileno=int(descriptor)) as shared:
        shared.setblocking(False)
        main(world_name, redis, shared, *map(int, numbers))
