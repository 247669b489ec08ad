"""Calls of the operating system that are not the same on each: forks, pipes and sockets.

On Windows there is no fork, a pipe cannot be waited for, and a socket is no file descriptor.
"""

from __future__ import annotations

import contextlib
import errno
import math
import os
import select
import socket
import sys
from collections.abc import Callable

__all__ = [
    "after_fork",
    "allow_open_files",
    "close_pipe",
    "has_hung_up",
    "most_open_files",
    "open_pipe",
    "read_pipe",
    "read_socket",
    "set_pipe_blocking",
    "take_free_address",
    "write_parts",
    "write_pipe",
    "write_socket",
]


def after_fork(function: Callable[[], object]) -> None:
    """Call a function in each forked child. Without forks there is none."""
    register = getattr(os, "register_at_fork", None)
    if register is not None:
        register(after_in_child=function)


if sys.platform == "win32":

    def _call(number: int, call: Callable[[socket.socket], object]) -> object:
        if number < 0:
            raise OSError(errno.EBADF, "the socket has been closed")
        view = socket.socket(fileno=number)
        try:
            return call(view)
        finally:
            view.detach()

    #: Both ends are sockets.
    open_pipe = socket.socketpair
    read_pipe, write_pipe, close_pipe = socket.socket.recv, socket.socket.send, socket.socket.close
    set_pipe_blocking = socket.socket.setblocking

    def read_socket(number: int, size: int) -> object:
        return _call(number, lambda view: view.recv(size))

    def write_socket(number: int, data: bytes | memoryview) -> object:
        return _call(number, lambda view: view.send(data))

    def write_parts(number: int, parts: list[bytes]) -> object:
        return write_socket(number, b"".join(parts))

    def has_hung_up(number: int) -> bool:
        # Unread data hides the end.
        try:
            return _call(number, lambda view: view.recv(1, socket.MSG_PEEK)) == b""
        except BlockingIOError:
            return False
        except OSError:
            return True

    def take_free_address(sock: socket.socket) -> None:
        # With SO_REUSEADDR a second server could bind the address of the first.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_EXCLUSIVEADDRUSE, 1)

    def most_open_files() -> float:
        return math.inf  # sockets are no files there

    def allow_open_files(number: int) -> None:
        pass

else:
    import resource

    open_pipe = os.pipe
    read_pipe, write_pipe, close_pipe = os.read, os.write, os.close
    set_pipe_blocking = os.set_blocking
    #: What a non-blocking socket takes or has; raises BlockingIOError if that is nothing.
    read_socket, write_socket, write_parts = os.read, os.write, os.writev

    #: On Linux: the peer sends no more. On other systems: the peer has gone.
    _HUNG_UP = select.POLLHUP | select.POLLERR | getattr(select, "POLLRDHUP", 0)

    def has_hung_up(number: int) -> bool:
        """Whether the peer of a socket has closed or reset the connection."""
        poll = select.poll()
        poll.register(number, _HUNG_UP)
        return bool(poll.poll(0))

    def take_free_address(sock: socket.socket) -> None:
        """Bind an address although connections of its last owner are not forgotten yet."""
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)

    def most_open_files() -> float:
        """The number of files and sockets that this process may have open; infinite without a limit."""
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        return math.inf if soft == resource.RLIM_INFINITY else soft

    def allow_open_files(number: int) -> None:
        """Have this process open that many files, or as many as it may allow itself. The limit is never lowered."""
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        most = number if hard == resource.RLIM_INFINITY else min(number, hard)
        if soft == resource.RLIM_INFINITY or soft >= most:
            return
        with contextlib.suppress(OSError, ValueError):  # macOS has another limit, which is lower than "unlimited"
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
