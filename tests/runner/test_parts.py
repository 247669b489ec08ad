"""The runner's parts, one by one: sockets, the application's name, the log, delays, the lifeline."""

from __future__ import annotations

import errno
import os
import socket
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import trio
from hypercorn.config import Config

from trio_channels.exceptions import CannotStart
from trio_channels.runner import CANNOT_START, CRASHED, main
from trio_channels.runner.cli import Options
from trio_channels.runner.lifeline import READY, Inheritance, Lifeline, inherited
from trio_channels.runner.serving import load, pid_file
from trio_channels.runner.sockets import descriptors, listening, use
from trio_channels.runner.supervisor import (
    FIRST_DELAY,
    LONGEST_DELAY,
    MAX_FAILED_STARTS,
    STEADY,
    RestartBackoff,
    _Parent,
)

from ..ports import free_port


def config_for(*addresses: str) -> Config:
    config = Config()
    config.bind = list(addresses)
    return config


# -- sockets ----------------------------------------------------------------------------------------------------------


def test_every_address_is_listened_on_and_closed_in_the_end(tmp_path: Path) -> None:
    config = config_for("127.0.0.1:0", "[::1]:0", f"unix:{tmp_path}/socket")
    with listening(config) as listeners:
        assert [sock.family for _, sock in listeners] == [socket.AF_INET, socket.AF_INET6, socket.AF_UNIX]
        for _, sock in listeners:
            with socket.socket(sock.family) as client:
                client.connect(sock.getsockname())
    assert [sock.fileno() for _, sock in listeners] == [-1, -1, -1]
    assert not (tmp_path / "socket").exists()


def test_configuration_names_the_sockets_that_are_open() -> None:
    config = config_for("127.0.0.1:0")
    with listening(config) as listeners:
        number = listeners[0][1].fileno()
        use(config, descriptors(listeners))
        assert config.bind == [f"fd://{number}"]


def test_with_tls_there_may_be_addresses_without(tmp_path: Path) -> None:
    config = config_for("127.0.0.1:0")
    config.insecure_bind = ["127.0.0.1:0"]
    with listening(config) as listeners:
        assert [kind for kind, _ in listeners] == ["bind"]
    config.certfile = config.keyfile = "only their being there is asked for"
    with listening(config) as listeners:
        assert [kind for kind, _ in listeners] == ["bind", "insecure_bind"]
        assert descriptors(listeners) == {kind: [sock.fileno()] for kind, sock in listeners}


@pytest.mark.parametrize("address", ["127.0.0.1:99999", "256.1.1.1:0", "unix:/nowhere/at/all", "fd://9999"])
def test_address_that_cannot_be_is_told(address: str) -> None:
    with pytest.raises(CannotStart, match="cannot listen on"), listening(config_for("127.0.0.1:0", address)):
        pass


@pytest.mark.parametrize(
    ("address", "host"), [("[::1]:0", "::1"), ("127.0.0.1:0", "127.0.0.1"), ("localhost:0", "127.0.0.1")]
)
def test_address_is_host_and_port(address: str, host: str) -> None:
    with listening(config_for(address)) as listeners:
        assert listeners[0][1].getsockname()[0] == host


def test_socket_that_is_open_already_is_used() -> None:
    given = socket.create_server(("127.0.0.1", 0))
    name = given.getsockname()
    with listening(config_for(f"fd://{given.detach()}")) as listeners:
        assert listeners[0][1].getsockname() == name


def test_unix_sockets_mode_is_hypercorns_option(tmp_path: Path) -> None:
    config = config_for(f"unix:{tmp_path}/socket")
    config.umask, config.user, config.group = 0o077, os.getuid(), os.getgid()
    with listening(config):
        assert (tmp_path / "socket").stat().st_mode & 0o777 == 0o700


def test_quic_is_a_datagram_socket() -> None:
    config = config_for()
    config.certfile = config.keyfile = "only their being there is asked for"
    config.quic_bind = ["127.0.0.1:0"]
    with listening(config) as listeners:
        assert [(kind, sock.type) for kind, sock in listeners] == [("quic_bind", socket.SOCK_DGRAM)]


def test_taken_port_is_told_even_with_several_processes() -> None:
    with listening(config_for("127.0.0.1:0")) as listeners:
        config = config_for(f"127.0.0.1:{listeners[0][1].getsockname()[1]}")
        config.workers = 2
        with pytest.raises(CannotStart, match="in use"), listening(config):
            pass


def test_unix_socket_of_another_server_is_not_replaced(tmp_path: Path) -> None:
    address = f"unix:{tmp_path}/socket"
    with listening(config_for(address)):
        with pytest.raises(CannotStart, match="another server listens there"), listening(config_for(address)):
            pass
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(tmp_path / "socket"))


def test_left_behind_unix_socket_is_replaced_and_a_file_is_not(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(tmp_path / "socket"))
    with listening(config_for(f"unix:{tmp_path}/socket")):
        pass
    (tmp_path / "file").write_text("mine")
    with pytest.raises(CannotStart), listening(config_for(f"unix:{tmp_path}/file")):
        pass
    assert (tmp_path / "file").read_text() == "mine"


def test_unix_socket_replaced_by_another_server_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with listening(config_for(f"unix:{path}")):
        path.rename(tmp_path / "old")
        path.write_text("another's")
    assert path.exists()


def test_unix_socket_may_have_been_removed_meanwhile(tmp_path: Path) -> None:
    with listening(config_for(f"unix:{tmp_path}/socket")):
        (tmp_path / "socket").unlink()


def test_main_tells_what_is_taken_and_returns_its_code(caplog: pytest.LogCaptureFixture) -> None:
    with listening(config_for("127.0.0.1:0")) as listeners:
        address = f"127.0.0.1:{listeners[0][1].getsockname()[1]}"
        assert main(["serve", "nowhere:application", "--bind", address]) == CANNOT_START
    assert f"cannot start: cannot listen on {address}" in caplog.text


def test_certificate_that_is_not_there_is_told(caplog: pytest.LogCaptureFixture) -> None:
    tls = ["--certfile", "nowhere.pem", "--keyfile", "nowhere.pem"]
    assert main(["serve", "nowhere:application", "--bind", "127.0.0.1:0", *tls]) == CANNOT_START
    assert "cannot use the TLS certificate 'nowhere.pem'" in caplog.text


def test_pid_file_is_there_for_as_long_as_the_process(tmp_path: Path) -> None:
    config = Config()
    with pid_file(config):
        pass
    config.pid_path = str(tmp_path / "pid")
    with pid_file(config):
        assert (tmp_path / "pid").read_text() == f"{os.getpid()}\n"
    assert not (tmp_path / "pid").exists()


# -- the application --------------------------------------------------------------------------------------------------


def test_application_is_found_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.runner import application as module
    from tests.runner.application import application

    monkeypatch.setattr(module, "site", SimpleNamespace(application=application), raising=False)

    assert load("tests.runner.application:application") is application
    assert load("tests.runner.application") is application
    assert load("tests.runner.application:site.application") is application


def test_something_else_with_that_name_is_refused() -> None:
    with pytest.raises(CannotStart, match=r"Call it: Echo\.as_asgi\(\)"):
        load("tests.runner.application:Echo.as_asgi")


def test_working_directory_is_on_the_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.path", [])
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runner_app.py").write_text("def application(scope, receive, send): pass")
    assert callable(load("runner_app:application"))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nowhere:application", "there is no module 'nowhere'"),
        ("tests.settings.application", "expected module:attribute, such as 'mysite.asgi:application'"),
        ("tests.nowhere.asgi:application", "there is no module 'tests.nowhere'"),
        ("tests.runner.application:nothing", "has no attribute 'nothing'; expected module:attribute"),
        ("tests.runner.application:not_callable", "must be an ASGI application, a callable; got int"),
    ],
)
def test_what_is_not_there_is_told_by_its_name(name: str, message: str) -> None:
    with pytest.raises(CannotStart, match=message) as failure:
        load(name)
    assert failure.value.__cause__ is None


@pytest.mark.parametrize("program", ["1 / 0", "import nowhere_at_all"])
def test_module_that_fails_is_told_with_its_traceback(
    program: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "failing.py").write_text(program)
    with pytest.raises(CannotStart, match="importing 'failing' failed") as failure:
        load("failing:application")
    assert failure.value.__cause__ is not None


# -- delays and the lifeline ------------------------------------------------------------------------------------------


def test_restart_delays_double_up_to_a_limit_and_are_reset() -> None:
    backoff = RestartBackoff()
    for number, delay in enumerate([backoff.delay(0.0) for _ in range(10)]):
        longest = min(FIRST_DELAY * 2**number, LONGEST_DELAY)
        assert longest * 0.5 <= delay <= longest
    assert backoff.delay(STEADY) <= FIRST_DELAY


def test_child_finds_its_inheritance_once(monkeypatch: pytest.MonkeyPatch) -> None:
    inheritance = Inheritance(2, 7, {"bind": [8, 9], "insecure_bind": [10]})
    assert inherited() is None
    monkeypatch.setattr("os.environ", inheritance.environment())
    assert inherited() == inheritance
    assert inherited() is None
    assert inheritance.descriptors() == [7, 8, 9, 10]


async def test_lifeline_reports_readiness_and_the_parents_end() -> None:
    parent, child = socket.socketpair()
    async with Lifeline(child.detach()) as lifeline:
        await lifeline.ready(2.5)
        assert READY.unpack(parent.recv(10)) == (2.5,)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lifeline.wait_closed)
            parent.close()
        await lifeline.ready(2.5)


async def test_parent_that_ends_unheard_is_gone_too() -> None:
    parent, child = socket.socketpair()
    async with Lifeline(child.detach()) as lifeline:
        await lifeline.ready(2.5)
        parent.close()  # with the message unread, the system resets the connection
        await lifeline.wait_closed()


# -- the parent -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("served", [0, 1])
async def test_system_without_processes_is_tried_again_up_to_a_limit(
    served: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    open_process = trio.lowlevel.open_process
    calls = 0

    async def failing(command: list[str], *, env: dict[str, str], pass_fds: list[int]) -> trio.Process:
        nonlocal calls
        calls += 1
        if calls > served:
            raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")
        says_ready = f"import os; os.write({pass_fds[0]}, {READY.pack(1)!r}); os._exit(1)"
        return await open_process([sys.executable, "-c", says_ready], pass_fds=pass_fds)

    monkeypatch.setattr(trio.lowlevel, "open_process", failing)
    monkeypatch.setattr("trio_channels.runner.supervisor.FIRST_DELAY", 0.01)
    parent = _Parent(Options("x:y", Config(), 1, ("serve", "x:y")), [])
    await parent.run()
    assert parent.code == CRASHED
    assert calls == (1 if not served else 1 + MAX_FAILED_STARTS)
    assert "stopping: the system cannot start another process: " in caplog.text


def test_address_without_a_port_has_the_default_one(monkeypatch: pytest.MonkeyPatch) -> None:
    port = free_port()
    monkeypatch.setattr("trio_channels.runner.sockets._DEFAULT_PORT", port)
    with listening(config_for("127.0.0.1")) as listeners:
        assert [sock.getsockname() for _, sock in listeners] == [("127.0.0.1", port)]
