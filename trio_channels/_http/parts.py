"""The parts of a synchronous stream: made on a thread, which runs ahead, and sent from the Trio thread.

One call to the thread makes many parts, so that a long stream needs few. The rules:

- At most :data:`AHEAD` bytes have been made and not sent: a slow client stops the iterator.
- Our own server gets the parts that are there when the sender comes all at once; short ones are joined, up to
  :data:`JOINED` bytes, as each takes a while. Another server gets each part in a message of its own.
- A part waits for others :data:`PROMPT` seconds at most, also if the iterator waits meanwhile.
- When the sending ends, for whatever reason, the thread makes the part that it has begun, and no other.
- If the iterator fails, the parts before are sent first.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import trio

from .._concurrency.wakeup import Wakeup
from .._threads.thread import call_soon_in_trio

#: Bytes that have been made and not been sent; the next call to the thread comes when half of them have.
AHEAD = 2**20
#: A short part counts as so many bytes, as its object takes memory, too.
LEAST = 2**10
#: Bytes that are sent in one message, unless one part is longer.
JOINED = 2**16
#: Seconds that a part waits for others.
PROMPT = 0.005

Run = Callable[..., Awaitable[Any]]  # runs a function on a thread


class Parts:
    """The parts of one stream.

    `run` runs a function on the thread on which they are made. Parts are joined up to `joined` bytes; with 0 each is
    sent alone. `rest` is called before the sender waits for parts.
    """

    __slots__ = (
        *("_come", "_failure", "_joined", "_made", "_over", "_parts", "_ready", "_rest", "_room", "_run", "_sent"),
        *("_stopped", "_taken", "_wanted"),
    )

    def __init__(self, parts: Iterable[bytes], run: Run, joined: int, rest: Callable[[], object]) -> None:
        self._parts = iter(parts)
        self._run = run
        self._joined = joined
        self._rest = rest
        self._ready: deque[bytes] = deque()
        self._made = self._taken = self._sent = 0  # bytes; the thread changes the first, the sender the others
        self._come, self._room = Wakeup(), Wakeup()
        self._wanted = False  # the sender waits for the next part
        self._stopped = False  # nobody sends any more
        self._over = False  # no more parts are made
        self._failure: BaseException | None = None

    async def send(self, send: Callable[[list[bytes]], Awaitable[object]]) -> None:
        """Make the parts, and send them. Cancellation: the part that the thread makes is waited for, and dropped."""
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._send, send)
                await self._make()  # in this task: the iterator may change its context
        except* trio.Cancelled:
            if self._failure is None:
                raise
        if self._failure is not None:
            try:
                raise self._failure  # here, where no nursery puts it into a group
            finally:
                self._failure = None  # its traceback refers to this frame

    async def _make(self) -> None:
        try:
            while not self._stopped and await self._run(self._make_some):
                self._come.set()
                # The thread does not run beside the sender: both need the interpreter's lock, and would take turns.
                while self._ready and not self._stopped:
                    await self._room.wait()
        except trio.Cancelled:
            raise
        except BaseException as error:
            self._failure = error  # it counts more than that of the sender, for whom the client may just have left
        finally:
            self._over = True
            self._come.set()

    def _make_some(self) -> bool:
        """On the thread: make parts until enough wait; returns False at the end."""
        for part in self._parts:
            if part:
                self._ready.append(part)
                self._made += max(len(part), LEAST)
                if self._wanted:
                    self._wanted = False
                    call_soon_in_trio(self._come.set)
            if self._stopped or self._made - self._sent >= AHEAD:
                return True
        return False

    async def _send(self, send: Callable[[list[bytes]], Awaitable[object]]) -> None:
        try:
            while self._ready or not self._over:
                if self._ready:
                    await send(self._take())
                    self._sent = self._taken
                    if not self._ready:
                        self._room.set()
                else:
                    self._rest()
                    await self._wait_for_parts()
        except trio.Cancelled:
            raise
        except BaseException as error:
            self._failure = self._failure or error
        finally:
            self._stopped = True
            self._room.set()

    def _take(self) -> list[bytes]:
        """The parts to send next."""
        parts = [self._take_one()]
        while self._ready and self._joined:
            parts.append(self._take_one())
        return parts

    def _take_one(self) -> bytes:
        """The next part, joined with those behind it."""
        part = self._pop()
        if not self._ready or len(part) + len(self._ready[0]) > self._joined:
            return part
        parts, size = [part], len(part)
        while self._ready and (size := size + len(self._ready[0])) <= self._joined:
            parts.append(self._pop())
        return b"".join(parts)

    def _pop(self) -> bytes:
        part = self._ready.popleft()
        self._taken += max(len(part), LEAST)
        return part

    async def _wait_for_parts(self) -> None:
        """Wait until the thread has made enough, for a moment; then for the next part."""
        with trio.move_on_after(PROMPT):
            await self._come.wait()
            return
        self._wanted = True
        if not self._ready:  # it may have come just before
            await self._come.wait()
        self._wanted = False
