"""A server in a Trio run of one's own, and hypercorn's own worker with our connections."""

from __future__ import annotations

import logging
import subprocess
import sys
import threading
import time
from typing import Any

import hypercorn.trio
import hypercorn.trio.run
import pytest
import trio
from django.test import override_settings

import trio_channels.server
from tests.integration.server.conftest import Server, config_for_tests
from trio_channels._asgi.responses import respond_plainly
from trio_channels.exceptions import ConfigurationError
from trio_channels.routing import ProtocolTypeRouter
from trio_channels.server import install, serve
from trio_channels.server import run as _serve
from trio_channels.server.hardening import version_problem


@pytest.fixture
def other_version(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another version of hypercorn is installed, and this process has not complained yet."""
    monkeypatch.setattr("trio_channels.server.hardening.version", lambda _name: "0.19.0")
    monkeypatch.setattr("trio_channels.server.hardening._warned", False)


async def application(scope: Any, receive: Any, send: Any) -> None:
    """Does nothing."""


def test_install_replaces_what_hypercorns_worker_runs() -> None:
    assert install()
    assert hypercorn.trio.run.worker_serve is _serve.hardened_worker
    assert hypercorn.trio.worker_serve is _serve.hardened_worker_serve
    assert install(), "again"


def test_install_warns_once_of_another_version(other_version: None, caplog: pytest.LogCaptureFixture) -> None:
    before = hypercorn.trio.run.worker_serve
    assert not install()
    assert not install()
    assert hypercorn.trio.run.worker_serve is before
    (record,) = caplog.records
    assert (record.name, record.levelno) == ("trio_channels.server", logging.WARNING)
    assert "expected hypercorn 0.18.*, got 0.19.0: install it with" in record.getMessage()


async def test_serve_refuses_another_version(other_version: None) -> None:
    with pytest.raises(ConfigurationError, match=r"expected hypercorn 0\.18\.\*, got 0\.19\.0"):
        await serve(application, config_for_tests())


@pytest.mark.parametrize("found", ["0.18", "0.18.0", "0.18.7"])
def test_versions_of_the_series_are_supported(found: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trio_channels.server.hardening.version", lambda _name: found)
    assert version_problem() is None


@pytest.mark.parametrize("found", ["0.17.3", "0.180.0", "1.0"])
def test_other_versions_are_not_supported(found: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trio_channels.server.hardening.version", lambda _name: found)
    assert version_problem() is not None


def test_installed_hypercorn_is_supported() -> None:
    assert version_problem() is None


def test_importing_an_application_does_not_import_hypercorn() -> None:
    code = (
        "import sys, trio_channels.routing, trio_channels.asgi, trio_channels.server; print('hypercorn' in sys.modules)"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "False"


def test_package_has_no_other_names() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        trio_channels.server.nothing  # noqa: B018


def loaded_by_hypercorn(monkeypatch: pytest.MonkeyPatch, application: str) -> Any:
    """The function that hypercorn's Trio worker passes to `trio.run`."""
    ran: list[Any] = []
    monkeypatch.setattr("trio.run", ran.append)
    config = hypercorn.Config()
    config.application_path = application
    hypercorn.trio.run.trio_worker(config)
    return ran[0].func


@pytest.mark.parametrize("wanted", [True, False])
def test_application_hardens_hypercorn_unless_the_setting_says_no(
    wanted: bool, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.TRIO_CHANNELS = {"HARDEN_HYPERCORN": wanted}
    monkeypatch.delitem(sys.modules, "tests.server.loaded", raising=False)
    run = loaded_by_hypercorn(monkeypatch, "tests.server.loaded:application")
    assert (run is _serve.hardened_worker) is wanted


def test_application_hardens_nothing_without_hypercorns_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    before = hypercorn.trio.run.worker_serve
    monkeypatch.delitem(sys.modules, "hypercorn.trio.run")
    ProtocolTypeRouter({})
    assert before is hypercorn.trio.worker_serve


async def test_process_that_serves_unhardened_warns_once(
    settings: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    settings.TRIO_CHANNELS = {"HARDEN_HYPERCORN": False}
    monkeypatch.setattr("trio_channels.server.hardening._warned", False)
    for _ in range(2):
        router: Any = ProtocolTypeRouter({})
        assert caplog.records == []
    for _ in range(2):
        await hypercorn.trio.serve(router, config_for_tests(loglevel="ERROR"), shutdown_trigger=at_once)
    (record,) = [record for record in caplog.records if record.name == "trio_channels.server"]
    assert record.levelno == logging.WARNING
    assert "TRIO_CHANNELS['HARDEN_HYPERCORN'] is False" in record.getMessage()


async def test_our_own_serve_does_not_warn_where_hypercorn_is_not_hardened(
    settings: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    settings.TRIO_CHANNELS = {"HARDEN_HYPERCORN": False}
    monkeypatch.setattr("trio_channels.server.hardening._warned", False)
    await serve(ProtocolTypeRouter({}), config_for_tests(), shutdown_trigger=at_once)
    assert [record for record in caplog.records if record.name == "trio_channels.server"] == []


async def at_once() -> None:
    """A trigger that stops a server when it has started."""


@pytest.mark.parametrize(
    ("given", "debug", "watches"),
    [(None, False, False), (None, True, True), (0, True, False), (0.002, False, True)],
)
async def test_blocked_loop_is_logged_if_wanted(
    given: float | None, debug: bool, watches: bool, caplog: pytest.LogCaptureFixture
) -> None:
    async def block(scope: Any, receive: Any, send: Any) -> None:
        begin = time.monotonic()
        while watches and "in block" not in caplog.text:
            assert time.monotonic() < begin + 30
        await respond_plainly(send, 200, "unblocked")

    with override_settings(DEBUG=debug, TRIO_CHANNELS={"BLOCKED_LOOP": given}):
        async with trio.open_nursery() as nursery:
            (bind,) = await nursery.start(serve, ProtocolTypeRouter({"http": block}), config_for_tests())
            names = [thread.name for thread in threading.enumerate()]
            await Server(int(bind.rpartition(":")[2])).request("GET", "/")
            nursery.cancel_scope.cancel()
    assert ("trio-channels loop" in names) is watches
    assert ("the event loop has been blocked for" in caplog.text) is watches
