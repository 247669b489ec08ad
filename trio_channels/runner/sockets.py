"""The listening sockets: opened once, before everything else, and then known by their descriptors.

They are opened as hypercorn opens them, with three differences. An error names its address. SO_REUSEPORT is not set,
because with it two servers on one port do not notice each other. A unix socket on which another server listens is not
replaced.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

from hypercorn.config import Config

from .._concurrency.system import take_free_address
from ..exceptions import CannotStart

#: Hypercorn's options for addresses. Without TLS it uses only `bind`.
KINDS = ("bind", "insecure_bind", "quic_bind")

_DEFAULT_PORT = 8000

#: Pairs of kind and socket. The kind is one of KINDS.
Listeners = list[tuple[str, socket.socket]]
#: The descriptors of each kind, in the order of the addresses.
Descriptors = Mapping[str, list[int]]


@contextmanager
def listening(config: Config) -> Iterator[Listeners]:
    """Listen on all addresses; close the sockets and remove their files after the block. Raises CannotStart."""
    opened: Listeners = []
    files: dict[Path, int] = {}
    try:
        for kind in KINDS if config.ssl_enabled else KINDS[:1]:
            for address in getattr(config, kind):
                opened.append((kind, _open(config, kind, address)))
                if address.startswith("unix:"):
                    path = Path(address.removeprefix("unix:"))
                    files[path] = path.stat().st_ino
        yield opened
    finally:
        for _, sock in opened:
            sock.close()
        for path, number in files.items():
            _remove(path, number)


def descriptors(listeners: Listeners) -> Descriptors:
    """The sockets' descriptors, by kind."""
    return {kind: [sock.fileno() for other, sock in listeners if other == kind] for kind, _ in listeners}


@contextmanager
def duplicates(listeners: Listeners) -> Iterator[Descriptors]:
    """Descriptors for a process that is being started. In the block, they do not end with the sockets."""
    with ExitStack() as stack:
        yield descriptors([(kind, stack.enter_context(sock.dup())) for kind, sock in listeners])


def use(config: Config, descriptors: Descriptors) -> None:
    """Replace the addresses of a configuration by open sockets. The server that uses the configuration owns them."""
    for kind in KINDS:
        setattr(config, kind, [f"fd://{number}" for number in descriptors.get(kind, ())])


def _open(config: Config, kind: str, address: str) -> socket.socket:
    datagrams = kind == "quic_bind"
    try:
        sock = _bound(config, address, socket.SOCK_DGRAM if datagrams else socket.SOCK_STREAM)
        if not datagrams:
            with _closed_on_error(sock):
                sock.listen(config.backlog)
    except (OSError, OverflowError, ValueError) as error:
        raise CannotStart(
            f"cannot listen on {address}: {error}. Free this address, or give another with --bind"
        ) from None
    return sock


def _bound(config: Config, address: str, kind: socket.SocketKind) -> socket.socket:
    """A bound socket. The address is fd://number, unix:path, host, host:port or [address]:port, as in hypercorn."""
    if address.startswith("fd://"):
        return socket.socket(fileno=int(address.removeprefix("fd://")))
    if address.startswith("unix:"):
        return _bound_to_file(config, address.removeprefix("unix:"), kind)
    bare = address.replace("[", "").replace("]", "")
    host, _, port = bare.rpartition(":")
    if not port.isdecimal() or (":" in host and "]" not in address):  # hypercorn would split "::1" into host and port
        host, port = bare, str(_DEFAULT_PORT)
    sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, kind)
    with _closed_on_error(sock):
        if kind is socket.SOCK_STREAM:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        take_free_address(sock)
        sock.bind((host, int(port)))
    return sock


def _bound_to_file(config: Config, name: str, kind: socket.SocketKind) -> socket.socket:
    if not hasattr(socket, "AF_UNIX"):
        raise ValueError("this system has no unix sockets")
    path = Path(name)
    if path.is_socket():
        _refuse_if_served(name)
        path.unlink()
    sock = socket.socket(socket.AF_UNIX, kind)
    with _closed_on_error(sock):
        before = None if config.umask is None else os.umask(config.umask)
        try:
            sock.bind(name)
        finally:
            if before is not None:
                os.umask(before)
        if config.user is not None and config.group is not None:
            os.chown(name, config.user, config.group)
    return sock


@contextmanager
def _closed_on_error(sock: socket.socket) -> Iterator[None]:
    try:
        yield
    except BaseException:
        sock.close()
        raise


def _refuse_if_served(name: str) -> None:
    """Raise if another server listens on a unix socket. A socket that was left behind may be replaced."""
    with socket.socket(socket.AF_UNIX) as client:
        try:
            client.connect(name)
        except ConnectionRefusedError:
            return
    raise FileExistsError("another server listens there")


def _remove(path: Path, number: int) -> None:
    """Remove a unix socket's file, unless another server has replaced it."""
    try:
        if path.stat().st_ino == number:
            path.unlink()
    except FileNotFoundError:
        pass
