"""A server in a Trio run of one's own, and hypercorn's own worker with our connections."""

from __future__ import annotations

import importlib.metadata
import logging
from typing import Any

import hypercorn.trio
import hypercorn.trio.run
import pytest

from trio_channels.server import install
from trio_channels.server import run as _serve


@pytest.fixture
def unhardened(monkeypatch: pytest.MonkeyPatch) -> None:
    """hypercorn as it is, before and after."""
    for module in (hypercorn.trio, hypercorn.trio.run):
        monkeypatch.setattr(module, "worker_serve", module.worker_serve)


def test_install_replaces_what_hypercorns_worker_runs(unhardened: None) -> None:
    assert install()
    assert hypercorn.trio.run.worker_serve is _serve.hardened_worker_serve
    assert hypercorn.trio.worker_serve is _serve.hardened_worker_serve
    assert install(), "again"


def test_install_leaves_an_unknown_version_alone_and_warns(
    unhardened: None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    before = hypercorn.trio.run.worker_serve
    monkeypatch.setattr("trio_channels.server.hardening.version", lambda _name: "0.99.0")
    assert not install()
    assert hypercorn.trio.run.worker_serve is before
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "0.99.0" in record.getMessage()


def test_the_installed_hypercorn_is_one_that_was_tested() -> None:
    from trio_channels.server.hardening import TESTED

    assert importlib.metadata.version("hypercorn") in TESTED


def loaded_by_hypercorn(monkeypatch: pytest.MonkeyPatch, application: str) -> Any:
    """What hypercorn's Trio worker would have run."""
    ran: list[Any] = []
    monkeypatch.setattr("trio.run", ran.append)
    config = hypercorn.Config()
    config.application_path = application
    hypercorn.trio.run.trio_worker(config)
    return ran[0].func


@pytest.mark.parametrize("wanted", [True, False])
def test_an_application_that_hypercorn_loads_hardens_it_unless_the_setting_says_no(
    wanted: bool, unhardened: None, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.TRIO_CHANNELS = {"HARDEN_HYPERCORN": wanted}
    monkeypatch.delitem(__import__("sys").modules, "tests.server.loaded", raising=False)
    run = loaded_by_hypercorn(monkeypatch, "tests.server.loaded:application")
    assert (run is _serve.hardened_worker_serve) is wanted


def test_an_application_that_anything_else_makes_hardens_nothing(unhardened: None) -> None:
    from trio_channels.routing import ProtocolTypeRouter

    before = hypercorn.trio.run.worker_serve
    ProtocolTypeRouter({})
    assert hypercorn.trio.run.worker_serve is before
