"""The writing side of a connection: turns, deadlines, and system calls that are tried before they are waited for."""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import TYPE_CHECKING

import trio

from .._concurrency import YIELD_EVERY
from .limits import SLOWEST
from .transport import SocketTransport

if TYPE_CHECKING:
    from ssl import SSLContext

    from .connections import Server
    from .tasks import ConnectionTasks

#: Bytes of a long write that have a deadline of their own: a client that takes nothing is not kept for a long one's.
_PIECE = 2**18

#: The errors of a client that has gone, or of this side's closed socket.
BROKEN = (trio.BrokenResourceError, trio.ClosedResourceError)


class Writer:
    """Writes to one client; the subclass reads, and resets the connection."""

    __slots__ = ("_closing", "_free", "_immediate", "_transport", "_turn_to_write", "limits", "served", "tasks", "tls")

    tasks: ConnectionTasks

    def __init__(self, served: Server, transport: SocketTransport, tls: SSLContext | None) -> None:
        self.served = served
        self.limits = served.limits
        self._transport = transport
        self.tls: trio.SSLStream[SocketTransport] | None = None
        if tls is not None:
            self.tls = trio.SSLStream(transport, tls, server_side=True, https_compatible=True)
        self._closing = False
        self._immediate = 0
        self._turn_to_write: trio.Semaphore | None = None  # made for the first write that has to wait
        self._free = True  # nobody has the turn; asked for with each broadcast, and less to do than asking a semaphore

    def abort(self) -> None:
        """Reset the connection."""
        raise NotImplementedError

    async def _fair(self) -> None:
        """Run a checkpoint every ``YIELD_EVERY`` reads and writes that did not have to wait."""
        self._immediate += 1
        if self._immediate >= YIELD_EVERY:
            self._immediate = 0
            await trio.lowlevel.checkpoint()
        else:
            await trio.lowlevel.checkpoint_if_cancelled()

    async def write(self, data: bytes) -> None:
        """Write to the client. Cancellation: resets the connection if the data has been written in part."""
        # As _fair(), with one coroutine less.
        self._immediate += 1
        if self._immediate >= YIELD_EVERY:
            self._immediate = 0
            await trio.lowlevel.checkpoint()
        else:
            await trio.lowlevel.checkpoint_if_cancelled()
        sent = 0
        try:
            if self._free and self.tls is None and not self._closing:  # can_write_now, without a call
                sent = self._transport.send_nowait(data)
                if sent == len(data):
                    return
                self._take_turn()  # without a checkpoint: the rest must follow
            else:
                await self._turn.acquire()
                self._free = False
            await self._write_in_turn(memoryview(data)[sent:] if sent else data)
        except BROKEN as error:
            self._broken(error)

    async def deliver(self, data: bytes) -> None:
        """As :meth:`write`, for a part of a response: another one must not take its place.

        Cancellation: resets the connection.
        """
        try:
            await self.write(data)
        except BaseException:
            self.abort()
            raise

    async def write_parts(self, parts: list[bytes], renew: Callable[[], object]) -> None:
        """Write parts one behind the other, at once as many as the kernel takes.

        `renew` is called before each wait for the client, which has a time limit. Cancellation: as :meth:`deliver`.
        """
        try:
            await self._fair()
            while parts:
                if self.can_write_now:
                    parts = _behind(self._transport.send_parts_nowait(parts), parts)
                if parts:
                    renew()
                    await self.write(parts.pop(0))
        except BROKEN as error:
            self._broken(error)
        except BaseException:
            self.abort()
            raise

    def write_soon(self, data: bytes) -> None:
        """Write to the client now if nobody else is writing and the kernel takes it, otherwise in a task."""
        sent = 0
        if self.can_write_now:
            try:
                sent = self._transport.send_nowait(data)
            except BROKEN as error:
                self._broken(error)
                return
        if sent == 0:
            self.tasks.spawn(self.write, data)
        elif sent < len(data):
            self.abort()  # for a frame of two bytes it does not happen

    def write_whole(self, data: bytes) -> bool:
        """Write to the client now. False, and nothing is written, if somebody else is writing or the kernel is full."""
        if not self._free or self.tls is not None or self._closing:  # can_write_now, without a call
            return False
        try:
            sent = self._transport.send_nowait(data)
        except BROKEN as error:
            self._broken(error)
            return True
        if 0 < sent < len(data):
            self._take_turn()
            self.tasks.spawn(self._finish, memoryview(data)[sent:])
        return sent > 0

    async def _finish(self, rest: memoryview) -> None:
        try:
            await self._write_in_turn(rest)
        except BROKEN as error:
            self._broken(error)

    @property
    def is_closing(self) -> bool:
        """Whether nothing more is written, and no request is begun."""
        return self._closing

    @property
    def can_write_now(self) -> bool:
        """Whether nobody else is writing, and the connection is not encrypted: that may need several steps."""
        return self._free and self.tls is None and not self._closing

    @property
    def _turn(self) -> trio.Semaphore:
        if self._turn_to_write is None:
            self._turn_to_write = trio.Semaphore(1)  # not a lock: another task may finish a write
        return self._turn_to_write

    def _take_turn(self) -> None:
        self._turn.acquire_nowait()
        self._free = False

    async def _write_in_turn(self, data: bytes | memoryview) -> None:
        """Write while this side has the turn, which ends."""
        try:
            if not self._closing:
                await self._write_in_time(data)
        finally:
            self._turn.release()
            self._free = self._turn.value == 1  # it may have gone to the next task

    def _broken(self, error: BaseException) -> None:
        self._note(error)
        self.abort()

    def _note(self, broken: BaseException) -> None:
        """Count a peer that the kernel has dropped (``TCP_USER_TIMEOUT``); only the next system call says so."""
        if getattr(broken.__cause__, "errno", None) == errno.ETIMEDOUT:
            self.served.count("slow")

    async def _write_in_time(self, data: bytes | memoryview) -> None:
        self._immediate = 0
        done = False
        try:
            # D3: the write is not shielded, and has a deadline that ends the connection.
            with trio.CancelScope() as scope:
                latest = self._deadline(len(data))
                for start in range(0, len(data), _PIECE):
                    scope.deadline = min(latest, self._deadline(_PIECE))
                    await (self.tls or self._transport).send_all(memoryview(data)[start : start + _PIECE])
                done = True
            if not done:
                self.served.count("slow")
        finally:
            if not done:
                self.abort()

    def _deadline(self, size: int) -> float:
        return trio.current_time() + self.limits.write_timeout + size / SLOWEST / 100


def _behind(sent: int, parts: list[bytes]) -> list[bytes]:
    """What is left of some parts behind so many bytes."""
    for number, part in enumerate(parts):
        if sent < len(part):
            return [part[sent:], *parts[number + 1 :]]
        sent -= len(part)
    return []
