"""Figures of all processes: each child may ask the parent for the sum, and the parent asks all children.

They use the lifelines, once a child has said that it serves. A frame is a header and a content:

    child to parent   SUM n        what is the sum?
    parent to child   SNAPSHOT n   what are your figures?
    child to parent   SNAPSHOT n   my figures; n = 0: my last ones, as I end
    parent to child   SUM n        the sum

The parent keeps the last figures of each child. So the counters of a child that has ended, or does not answer in time,
still count: a sum that decreased would look as if all counters had begun again.
"""

from __future__ import annotations

import itertools
import struct

import trio

from .._metrics.snapshot import Snapshot, decode, encode, lasting, latest, total

#: The kinds of frames.
SUM, SNAPSHOT = 1, 2
#: Seconds in which a child must answer, and in which the parent must, which waits for children. Prometheus waits 10
#: seconds by default.
CHILDS_TIME, PARENTS_TIME = 2.0, 5.0

_HEADER = struct.Struct("!BII")  # kind, number, length of the content


class Frames:
    """Frames over one end of a lifeline."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream
        self._received = bytearray()
        self._writing = trio.Lock()

    async def send(self, kind: int, number: int, content: bytes = b"") -> None:
        """Send a frame; if the other side is gone, nothing. Cancellation: a part may be sent; send nothing after it."""
        async with self._writing:
            try:
                await self._stream.send_all(_HEADER.pack(kind, number, len(content)) + content)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                pass  # the reader learns it

    async def receive(self) -> tuple[int, int, bytes] | None:
        """The next frame; None at the end. Cancellation: loses nothing."""
        while True:
            if len(self._received) >= _HEADER.size:
                kind, number, length = _HEADER.unpack_from(self._received)
                end = _HEADER.size + length
                if len(self._received) >= end:
                    content = bytes(self._received[_HEADER.size : end])
                    del self._received[:end]
                    return kind, number, content
            try:
                data = await self._stream.receive_some()
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                return None
            if not data:
                return None
            self._received += data


class Questions:
    """Questions to the other side, and its answers."""

    def __init__(self, frames: Frames, patience: float) -> None:
        self._frames = frames
        self._patience = patience
        self._numbers = itertools.count(1)
        self._answers: dict[int, tuple[trio.Event, list[bytes]]] = {}

    async def ask(self, kind: int) -> bytes:
        """Ask, and wait for the answer. Raises TooSlowError without one. Cancellation: at any time."""
        number = next(self._numbers)
        event, answer = self._answers[number] = trio.Event(), []
        try:
            await self._frames.send(kind, number)
            with trio.fail_after(self._patience):
                await event.wait()
        finally:
            del self._answers[number]
        return answer[0]

    def answered(self, number: int, content: bytes) -> None:
        """Take an answer; one that comes too late is dropped."""
        if number in self._answers:
            event, answer = self._answers[number]
            answer.append(content)
            event.set()


class Reporter:
    """The parent's view of one child."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.last: Snapshot = {}
        self.ended = trio.Event()
        self._frames = Frames(stream)
        self._questions = Questions(self._frames, CHILDS_TIME)

    async def run(self, figures: Figures) -> None:
        """Take part until the child's end of the lifeline closes."""
        async with trio.open_nursery() as nursery:
            while (frame := await self._frames.receive()) is not None:
                kind, number, content = frame
                if kind == SUM:
                    nursery.start_soon(self._answer, figures, number)
                else:
                    self.last = latest(self.last, decode(content))
                    self._questions.answered(number, content)
            nursery.cancel_scope.cancel()
        self.ended.set()

    async def _answer(self, figures: Figures, number: int) -> None:
        await self._frames.send(SUM, number, encode(await figures.sum()))

    async def ask(self) -> bool:
        """Have the child renew :attr:`last`; returns whether it has."""
        try:
            await self._questions.ask(SNAPSHOT)
        except trio.TooSlowError:
            return False
        return True


class Figures:
    """The figures of all children, and of those that have ended."""

    def __init__(self) -> None:
        self._reporters: set[Reporter] = set()
        self._past: Snapshot = {}

    def add(self, reporter: Reporter) -> None:
        """A child serves."""
        self._reporters.add(reporter)

    def remove(self, reporter: Reporter) -> None:
        """A child has ended; its counters stay."""
        self._reporters.discard(reporter)
        self._past = total([self._past, lasting(reporter.last)])

    async def sum(self) -> Snapshot:
        """Ask all children, at once, and add up their figures. Cancellation: at any time."""
        answers: dict[Reporter, bool] = {}

        async def ask(reporter: Reporter) -> None:
            answers[reporter] = await reporter.ask()

        async with trio.open_nursery() as nursery:
            for reporter in self._reporters:
                nursery.start_soon(ask, reporter)
        here = {reporter: answered for reporter, answered in answers.items() if reporter in self._reporters}
        together = total([self._past, *(one.last if answered else lasting(one.last) for one, answered in here.items())])
        together["trio_channels_processes", ("answering",)] = [float(sum(here.values()))]
        together["trio_channels_processes", ("silent",)] = [float(len(here) - sum(here.values()))]
        return together
