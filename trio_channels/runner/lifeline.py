"""The connection between a parent and a child process: inherited listening sockets, and a socket pair, the lifeline.

When the child serves, it writes the seconds that it may need to end. After that both sides may ask for figures, see
:mod:`trio_channels.runner.figures`. When the parent's end closes, the child drains.
"""

from __future__ import annotations

import json
import os
import socket
import struct
from collections.abc import Callable
from dataclasses import asdict, dataclass
from itertools import chain
from typing import Self

import trio

from .._metrics.snapshot import Snapshot, encode
from .figures import PARENTS_TIME, SNAPSHOT, SUM, Frames, Questions
from .sockets import Descriptors

#: The environment variable that tells a child of its inheritance. The child removes it, so that its own children do not
#: see it.
_VARIABLE = "TRIO_CHANNELS_INHERITANCE"

#: The child's message: the seconds that it may need to end.
READY = struct.Struct("!d")


@dataclass(frozen=True)
class Inheritance:
    """The descriptors that a child process gets from its parent."""

    number: int
    lifeline: int
    listeners: Descriptors

    def descriptors(self) -> list[int]:
        """All descriptors."""
        return [self.lifeline, *chain.from_iterable(self.listeners.values())]

    def environment(self) -> dict[str, str]:
        """The child's environment."""
        return {**os.environ, _VARIABLE: json.dumps(asdict(self))}


def inherited() -> Inheritance | None:
    """This process' inheritance; None if it is not a child."""
    text = os.environ.pop(_VARIABLE, None)
    return None if text is None else Inheritance(**json.loads(text))


class Lifeline:
    """The child's end of the lifeline; ``async with`` closes it."""

    def __init__(self, descriptor: int) -> None:
        os.set_inheritable(descriptor, False)
        self._stream = trio.SocketStream(trio.socket.from_stdlib_socket(socket.socket(fileno=descriptor)))
        self._frames = Frames(self._stream)
        self._questions = Questions(self._frames, PARENTS_TIME)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_exc: object) -> None:
        await self._stream.aclose()

    async def ready(self, end_timeout: float) -> None:
        """Tell the parent that this process serves, and the seconds that it may need to drain."""
        try:
            await self._stream.send_all(READY.pack(end_timeout))
        except trio.BrokenResourceError:
            pass  # the parent is gone: wait_closed() returns

    async def sum(self) -> bytes:
        """The encoded figures of all processes. Raises TooSlowError without an answer. Cancellation: at any time."""
        return await self._questions.ask(SUM)

    async def report_last(self, snapshot: Snapshot) -> None:
        """Tell the parent this process' last figures. Cancellation: they may be lost."""
        await self._frames.send(SNAPSHOT, 0, encode(snapshot))

    async def wait_closed(self, snapshot: Callable[[], Snapshot] = dict) -> None:
        """Report figures until the parent tells this process to drain, or is gone. Cancellation: at any time."""
        while (frame := await self._frames.receive()) is not None:
            kind, number, content = frame
            if kind == SNAPSHOT:
                await self._frames.send(SNAPSHOT, number, encode(snapshot()))
            else:
                self._questions.answered(number, content)
