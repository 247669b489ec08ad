"""Option ``--pin``: each process that serves keeps to one core.

Python's lock has the loop and its worker threads take turns, however many cores there are. On several, each hop to a
worker thread and back wakes another core twice, and drags along what is in the caches. On one core it is a change of
threads, for a third to a half of the time. The price: C code that lets go of the lock shares the core with the loop,
and a process cannot move away from a neighbour on its core. So it is for machines that serve with about as many
processes as they have cores, and off unless it is asked for.

A core is what the system counts as one: hyper-threads are cores here.
"""

from __future__ import annotations

import logging
import os
import socket
import sys
import zlib
from collections.abc import Collection

from ..exceptions import CannotStart, ConfigurationError

logger = logging.getLogger("trio_channels.runner")


def check_system() -> None:
    """See whether a process can choose its cores here.

    Raises:
        ConfigurationError: it cannot.
    """
    if not hasattr(os, "sched_setaffinity"):
        raise ConfigurationError(
            f"--pin: expected a system where a process can choose its cores (os.sched_setaffinity), as Linux; "
            f"got {sys.platform}. Leave --pin out"
        )


def offset_of_server() -> int:
    """Where this server begins to count cores: servers beside each other should not all take the first.

    Those that are started together have ids in a row, and get cores in a row. In containers each has the same id, and a
    host name of its own.
    """
    return os.getpid() + zlib.crc32(socket.gethostname().encode("utf-8", "surrogateescape"))


def choose(cores: Collection[int], offset: int, number: int) -> int:
    """The core of a serving process: always the same one, and another than its neighbours' as far as there are enough.

    Args:
        cores: those that the server may use.
        offset: :func:`offset_of_server`, once for all processes of a server.
        number: of the worker; 0 for a server without workers.
    """
    in_order = sorted(cores)
    return in_order[(offset + number) % len(in_order)]


def keep_to(core: int) -> None:
    """Let the calling thread, and so all threads and processes that it starts from now on, run on this core alone.

    Raises:
        CannotStart: the system does not let it.
    """
    try:
        os.sched_setaffinity(0, {core})
    except OSError as error:
        raise CannotStart(f"--pin: cannot keep to core {core}: {error}. Leave --pin out, or allow it") from None


def warn_of_sharing(workers: int) -> None:
    """Say that there are more workers than cores."""
    cores = len(os.sched_getaffinity(0))
    if workers > cores:
        logger.warning(
            "--pin: %d workers for %d %s: several keep to the same one. Start fewer, or leave --pin out",
            workers,
            cores,
            "core" if cores == 1 else "cores",
        )
