"""``python -m tests.other_systems.hidden win32 serve ...``: ``trio-channels serve ...`` without Linux-only features.

Features that the other system lacks are deleted, or refuse to work, before trio_channels is imported. Trio, Django and
hypercorn, which know other systems themselves, are imported before that. With "imports" as the only argument, every
module of the package is imported.
"""

from __future__ import annotations

import asyncio  # noqa: F401 - this and the following modules check the real system when they are imported
import ctypes  # noqa: F401
import importlib
import logging.handlers  # noqa: F401
import multiprocessing.connection  # noqa: F401
import os
import pkgutil
import select
import signal
import socket
import ssl  # noqa: F401
import stat
import subprocess  # noqa: F401
import sys
import tempfile  # noqa: F401
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import django
import django.contrib.staticfiles.handlers
import django.core.management.commands.runserver
import django.db.backends.sqlite3.base
import django.test
import hypercorn.trio
import hypercorn.trio.run  # noqa: F401
import pytest  # noqa: F401
import trio

#: For each system the names that each module lacks there; a module without names is missing.
MISSING: dict[str, dict[Any, tuple[str, ...]]] = {
    "darwin": {
        os: ("sched_getaffinity", "sched_setaffinity", "pipe2", "memfd_create", "eventfd", "posix_fadvise"),
        select: ("epoll", "POLLRDHUP"),
        socket: ("TCP_USER_TIMEOUT", "SO_DOMAIN", "SO_PROTOCOL", "SOCK_NONBLOCK", "SOCK_CLOEXEC", "MSG_CMSG_CLOEXEC"),
    },
    "win32": {
        os: (
            *("register_at_fork", "fork", "forkpty", "wait", "waitid", "killpg", "setsid", "getpgid", "getuid"),
            *("geteuid", "getgid", "chown", "fchown", "fchmod", "sched_getaffinity", "sched_setaffinity", "pipe2"),
            *("sendfile", "set_blocking", "get_blocking", "mkfifo", "posix_spawn", "uname", "readv", "writev"),
        ),
        select: ("epoll", "poll", "POLLIN", "POLLOUT", "POLLHUP", "POLLERR", "POLLRDHUP", "POLLNVAL"),
        signal: (
            *("SIGHUP", "SIGKILL", "SIGQUIT", "SIGUSR1", "SIGUSR2", "SIGCHLD", "SIGALRM", "SIGPIPE", "pthread_kill"),
            *("pthread_sigmask", "sigwait", "alarm", "setitimer", "siginterrupt", "pause"),
        ),
        socket: (
            *("AF_UNIX", "SO_REUSEPORT", "SCM_RIGHTS", "send_fds", "recv_fds", "CMSG_LEN", "CMSG_SPACE"),
            *("TCP_USER_TIMEOUT", "SOCK_NONBLOCK", "SOCK_CLOEXEC", "MSG_DONTWAIT"),
        ),
        **dict.fromkeys(("fcntl", "resource", "pwd", "grp", "termios", "tty", "pty", "syslog", "crypt"), ()),
    },
}


def hide(system: str) -> None:
    """Remove the features that the system lacks from this process."""
    # Trio waits as on the real system.
    trio._core._io_epoll.select = SimpleNamespace(**vars(select))  # type: ignore[attr-defined]
    for place, names in MISSING[system].items():
        if isinstance(place, str):
            sys.modules[place] = None  # type: ignore[assignment]
        for name in names:
            if hasattr(place, name):
                delattr(place, name)
    if system == "win32":
        socket.socketpair = _tcp_pair
        socket.SO_EXCLUSIVEADDRUSE = socket.SO_KEEPALIVE  # type: ignore[attr-defined] # without effect here
        os.read, os.write = _refusing(os.read, stat.S_ISSOCK), _refusing(os.write, stat.S_ISSOCK)
        for name in ("wait_readable", "wait_writable"):
            setattr(trio.lowlevel, name, _refusing(getattr(trio.lowlevel, name), stat.S_ISFIFO))
    sys.platform = system


def _tcp_pair() -> tuple[socket.socket, socket.socket]:
    """A socket pair over TCP, as on Windows."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname())
        return listener.accept()[0], client


def _refusing(function: Callable[..., Any], kind: Callable[[int], bool]) -> Callable[..., Any]:
    """Make the function refuse a kind of descriptor: Windows' sockets are no files, its pipes cannot be waited for."""

    def call(number: Any, *arguments: Any) -> Any:
        if isinstance(number, int) and number >= 0 and kind(os.fstat(number).st_mode):
            raise OSError(f"{function.__name__} cannot be used with the descriptor {number} on this system")
        return function(number, *arguments)

    return call


def import_everything() -> None:
    """Import every module of the package."""
    django.setup()  # some modules import Django's models
    package = importlib.import_module("trio_channels")
    names = [module.name for module in pkgutil.walk_packages(package.__path__, "trio_channels.")]
    # The admin is not installed here; trio-asyncio, which the compatibility package needs, looks at the real system.
    left_out = ("trio_channels.inspector.admin", "trio_channels.compat.")
    for name in names:
        if not name.endswith("__main__") and not name.startswith(left_out):
            importlib.import_module(name)
    print(f"imported {len(names)} modules on {sys.platform}")


def main(system: str, *arguments: str) -> int:
    hide(system)
    if arguments == ("imports",):
        import_everything()
        return 0
    from trio_channels.runner import main

    return main(arguments)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
