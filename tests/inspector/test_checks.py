"""The system checks of the inspector, and its start."""

from __future__ import annotations

from typing import Any

import pytest
from django.conf import settings as django_settings
from django.core import checks

from trio_channels import _orders
from trio_channels.checks import TAG
from trio_channels.inspector import checks as inspector_checks
from trio_channels.inspector.answering import ASK
from trio_channels.inspector.apps import InspectorConfig

from .test_overview import WithoutPresence

OURS = {f"trio_channels.{number}" for number in ("W025", "E026", "W027")}
FOREIGN = {"default": {"BACKEND": f"{WithoutPresence.__module__}.WithoutPresence"}}


def found(monkeypatch: pytest.MonkeyPatch, *apps: str, **settings: Any) -> list[str]:
    """The ids of the checks of the inspector that say something of these apps and settings."""
    inspector_checks.register()
    monkeypatch.setattr("django.apps.apps.is_installed", lambda name: name in apps)
    for name, value in settings.items():
        monkeypatch.setattr(django_settings, name, value, raising=False)
    return [message.id for message in checks.run_checks(tags=[TAG]) if message.id in OURS]


@pytest.mark.parametrize("layers", [django_settings.CHANNEL_LAYERS, {}])
def test_good_settings_are_not_commented_upon(layers: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    given = {"CHANNEL_LAYERS": layers, "TRIO_CHANNELS": {"INSPECTOR_TIMEOUT": 2.0}}
    assert found(monkeypatch, "trio_channels", "trio_channels.inspector", **given) == []


def test_settings_of_an_inspector_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    given = {"CHANNEL_LAYERS": FOREIGN, "TRIO_CHANNELS": {"INSPECTOR_TIMEOUT": 2.0}}
    assert found(monkeypatch, "trio_channels", **given) == ["trio_channels.W025"]


def test_inspector_needs_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    assert found(monkeypatch, "trio_channels.inspector") == ["trio_channels.E026"]


def test_layer_without_presence(monkeypatch: pytest.MonkeyPatch) -> None:
    apps = ("trio_channels", "trio_channels.inspector")
    assert found(monkeypatch, *apps, CHANNEL_LAYERS=FOREIGN) == ["trio_channels.W027"]


def test_app_has_its_process_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    import trio_channels.inspector

    monkeypatch.setattr(_orders, "functions", {})
    monkeypatch.setattr(_orders, "introduction", None)
    InspectorConfig("trio_channels.inspector", trio_channels.inspector).ready()
    assert ASK in _orders.functions
    assert _orders.introduction is not None
