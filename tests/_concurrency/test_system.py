"""The system module does the same on every system. The tests load it as here, and as on Windows."""

from __future__ import annotations

import importlib.util
import resource
import select
import socket
import struct
import sys
from collections.abc import Iterator
from types import ModuleType

import pytest

from trio_channels._concurrency import system as real
from trio_channels._concurrency.system import allow_open_files


@pytest.fixture(params=["here", "win32"])
def system(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The module, as it is on each system."""
    if request.param == "here":
        return real
    monkeypatch.setattr(sys, "platform", request.param)
    # An option that changes nothing here.
    monkeypatch.setattr(socket, "SO_EXCLUSIVEADDRUSE", socket.SO_KEEPALIVE, raising=False)
    spec = importlib.util.spec_from_file_location("system_elsewhere", real.__file__)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Two connected sockets that do not block."""
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        socket.create_connection(listener.getsockname()) as one,
        listener.accept()[0] as other,
    ):
        one.setblocking(False)
        other.setblocking(False)
        yield one, other


def test_pipe_carries_bytes_and_can_be_empty(system: ModuleType) -> None:
    reader, writer = system.open_pipe()
    system.set_pipe_blocking(reader, False)
    with pytest.raises(BlockingIOError):
        system.read_pipe(reader, 1)
    system.write_pipe(writer, b"ab")
    assert system.read_pipe(reader, 4096) == b"ab"
    system.close_pipe(writer)
    assert system.read_pipe(reader, 1) == b""
    system.close_pipe(reader)


def test_socket_is_read_and_written_without_waiting(
    system: ModuleType, pair: tuple[socket.socket, socket.socket]
) -> None:
    one, other = pair
    with pytest.raises(BlockingIOError):
        system.read_socket(one.fileno(), 10)
    assert system.write_socket(other.fileno(), memoryview(b"hello")) == 5
    one.setblocking(True)  # wait for the bytes
    assert one.recv(5, socket.MSG_PEEK) == b"hello"
    one.setblocking(False)
    assert system.read_socket(one.fileno(), 3) == b"hel"
    assert system.read_socket(one.fileno(), 10) == b"lo"


def test_parts_are_written_in_their_order(system: ModuleType, pair: tuple[socket.socket, socket.socket]) -> None:
    one, other = pair
    assert system.write_parts(other.fileno(), [b"he", b"", b"llo"]) == 5
    one.setblocking(True)  # wait for the bytes
    assert one.recv(5, socket.MSG_WAITALL) == b"hello"


def test_write_into_a_full_socket_does_not_wait(system: ModuleType, pair: tuple[socket.socket, socket.socket]) -> None:
    def fill() -> None:
        while True:
            system.write_socket(pair[0].fileno(), bytes(65_536))

    with pytest.raises(BlockingIOError):
        fill()


def test_closed_socket_is_an_error_of_the_system(system: ModuleType, pair: tuple[socket.socket, socket.socket]) -> None:
    one, _ = pair
    one.close()
    for call in (lambda: system.read_socket(one.fileno(), 1), lambda: system.write_socket(one.fileno(), b"x")):
        with pytest.raises(OSError, match=r"descriptor|closed"):
            call()


@pytest.mark.parametrize("how", ["closed", "reset"])
def test_peer_that_has_gone_is_seen(system: ModuleType, pair: tuple[socket.socket, socket.socket], how: str) -> None:
    one, other = pair
    assert not system.has_hung_up(one.fileno())
    if how == "reset":
        other.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    other.close()
    select.select([one], [], [])  # until the kernel has told the other end
    assert system.has_hung_up(one.fileno())


def test_address_can_be_bound_again(system: ModuleType) -> None:
    with socket.socket() as sock:
        system.take_free_address(sock)
        sock.bind(("127.0.0.1", 0))


def test_number_of_open_files_is_known(system: ModuleType) -> None:
    assert system.most_open_files() >= 64


UNLIMITED = resource.RLIM_INFINITY


@pytest.mark.parametrize(
    ("soft", "hard", "set_to"),
    [
        (64, 500, 100),
        (64, UNLIMITED, 100),
        (64, 80, 80),
        (80, 80, None),
        (100, 500, None),
        (200, 500, None),
        (UNLIMITED, UNLIMITED, None),
    ],
)
def test_limit_of_open_files_is_raised(
    soft: int, hard: int, set_to: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    monkeypatch.setattr(resource, "getrlimit", lambda which: (soft, hard))
    monkeypatch.setattr(resource, "setrlimit", lambda which, limits: calls.append(limits))
    allow_open_files(100)
    assert calls == ([] if set_to is None else [(set_to, hard)])


@pytest.mark.parametrize("error", [OSError, ValueError])
def test_limit_that_the_system_refuses_stays(error: type[Exception], monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(which: int, limits: tuple[int, int]) -> None:
        raise error("current limit exceeds maximum limit")

    monkeypatch.setattr(resource, "getrlimit", lambda which: (64, UNLIMITED))
    monkeypatch.setattr(resource, "setrlimit", refuse)
    allow_open_files(100)


def test_allowing_files_is_no_error(system: ModuleType) -> None:
    system.allow_open_files(1)


def test_without_forks_nothing_is_registered(system: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr("os.register_at_fork")
    system.after_fork(print)
