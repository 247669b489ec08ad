"""The system checks of the outbox."""

from __future__ import annotations

from typing import Any

import pytest
from django.conf import settings as django_settings
from django.core import checks
from django.db import connections

from trio_channels.checks import TAG
from trio_channels.layers import InMemoryChannelLayer
from trio_channels.layers.base import ChannelLayer


class Forgetful(InMemoryChannelLayer):
    group_send_once = ChannelLayer.group_send_once


OF_OUTBOX = {f"trio_channels.{number}" for number in ("W020", "W021", "E022", "W023", "W024")}


def found(**settings: Any) -> list[str]:
    """The ids of the checks of the outbox that say something of these settings."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in settings.items():
            patch.setattr(django_settings, name, value, raising=False)
        return [
            message.id.rpartition(".")[2]
            for message in checks.run_checks(tags=[TAG], include_deployment_checks=True)
            if message.id in OF_OUTBOX
        ]


def test_good_settings_are_not_commented_upon(sqlite_database: Any) -> None:
    assert found() == []


def test_settings_of_an_outbox_that_is_not_installed(settings: Any) -> None:
    settings.INSTALLED_APPS = ["trio_channels"]
    settings.TRIO_CHANNELS = {"RELAY_POLL": 5}
    assert "W020" in found()
    settings.TRIO_CHANNELS = {}
    assert "W020" not in found()


def test_database_that_is_not_tested(sqlite_database: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections["default"], "vendor", "mysql")
    assert found() == ["W021"]


def test_application_without_which_there_is_no_command(settings: Any) -> None:
    settings.INSTALLED_APPS = ["trio_channels.outbox"]
    assert "E022" in found()


def test_layer_that_sends_twice(settings: Any) -> None:
    settings.CHANNEL_LAYERS = {"default": {"BACKEND": f"{__name__}.Forgetful"}}
    assert found() == ["W023"]


def test_retention_without_end(settings: Any) -> None:
    settings.TRIO_CHANNELS = {"RELAY_RETENTION": 0}
    assert found() == ["W024"]
