"""Ports for servers that have to be told theirs: everybody else has the system choose, with port 0."""

from __future__ import annotations

import random
import socket

#: Below those that the kernel gives to clients. One of these may be given away between the question whether it is free
#: and the server's start, or between a server's end and its return; and a client that tries a dead server's port again
#: and again would, one day, be given that very port, and connect to itself.
PORTS = range(11_000, 22_000)


def free_port(*also: int) -> int:
    """A port that nobody listens on.

    Args:
        also: how much further up other ports are that must be free, too.
    """
    while True:
        port = random.SystemRandom().choice(PORTS)
        try:
            for number in (port, *(port + further for further in also)):
                with socket.socket() as free:
                    free.bind(("127.0.0.1", number))
        except OSError:
            continue
        return port
