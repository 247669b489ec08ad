"""What joins a worker to its parent: the sockets it inherits, and the pair of sockets by which each knows the other.

On the pair the worker says once that it serves, and how long it may take to end. The parent says nothing; that its end
closes means: drain.
"""

from __future__ import annotations

import json
import os
import socket
import struct
from dataclasses import asdict, dataclass
from itertools import chain
from typing import Self

import trio

from .sockets import Descriptors

#: Where a worker finds its place; taken out of the environment at once, for processes of its own.
_VARIABLE = "TRIO_CHANNELS_WORKER"

#: What a worker says: seconds.
READY = struct.Struct("!d")


@dataclass(frozen=True)
class Place:
    """What a worker inherits.

    Args:
        number: of the worker, from 1.
        lifeline: the descriptor of its end of the pair.
        listeners: kind of address -> descriptors.
    """

    number: int
    lifeline: int
    listeners: Descriptors

    def descriptors(self) -> list[int]:
        """All of them."""
        return [self.lifeline, *chain.from_iterable(self.listeners.values())]

    def environment(self) -> dict[str, str]:
        """A worker's environment."""
        return {**os.environ, _VARIABLE: json.dumps(asdict(self))}


def inherited() -> Place | None:
    """The place that this process was given, if it is a worker."""
    text = os.environ.pop(_VARIABLE, None)
    return None if text is None else Place(**json.loads(text))


class Lifeline:
    """The worker's end; ``async with`` closes it."""

    def __init__(self, descriptor: int) -> None:
        os.set_inheritable(descriptor, False)
        self._stream = trio.SocketStream(trio.socket.from_stdlib_socket(socket.socket(fileno=descriptor)))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_exc: object) -> None:
        await self._stream.aclose()

    async def ready(self, patience: float) -> None:
        """Tell the parent that this worker serves, and that it ends by itself within so many seconds when told to."""
        try:
            await self._stream.send_all(READY.pack(patience))
        except trio.BrokenResourceError:
            pass  # the parent is gone, which wait_closed() tells

    async def wait_closed(self) -> None:
        """Wait until the parent wants this worker to end, or is gone.

        Cancellation: loses nothing.
        """
        try:
            await self._stream.receive_some()
        except trio.BrokenResourceError:
            pass
