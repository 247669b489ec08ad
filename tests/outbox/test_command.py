"""``manage.py relay``: it relays until a signal, shows the state, and has messages tried again."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import connections
from django.test import override_settings
from django.utils import timezone

from trio_channels import outbox
from trio_channels.layers import InMemoryChannelLayer, channel_layers
from trio_channels.outbox.models import OutboxMessage
from trio_channels.server.lifespan import CANNOT_START

from ..redis_server import RedisServer

REDIS = "trio_channels.layers.redis.RedisStreamsChannelLayer"


@pytest.fixture
def on_redis(settings: Any, redis_server: RedisServer) -> Iterator[None]:
    settings.CHANNEL_LAYERS = {
        "default": {"BACKEND": REDIS, "CONFIG": {"hosts": [redis_server.url]}},
        "here": {"BACKEND": "trio_channels.layers.InMemoryChannelLayer"},
    }
    yield
    channel_layers.set("default", None)


def send(*groups: str, layer: str = "default") -> list[int]:
    for group in groups:
        outbox.group_send(group, {"type": "t"}, layer=layer)
    return list(OutboxMessage.objects.order_by("id").values_list("pk", flat=True))


@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)])
def test_relay_works_until_a_signal(
    postgres_database: Any, on_redis: None, number: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "trio_channels.outbox")
    send("g", "h")
    send("g", layer="here")

    def end() -> None:
        try:
            deadline = time.monotonic() + 60
            while outbox.status().pending > 1 and time.monotonic() < deadline:
                time.sleep(0.01)
            os.kill(os.getpid(), number)
        finally:
            connections.close_all()

    thread = threading.Thread(target=end)
    thread.start()
    call_command("relay", verbosity=0)
    thread.join()
    assert list(OutboxMessage.objects.values_list("layer", flat=True)) == ["here"]  # nobody would hear it
    assert f"{signal.Signals(number).name}: the relay ends" in caplog.text


def test_status_shows_what_waits_and_what_failed(sqlite_database: Any, capsys: pytest.CaptureFixture[str]) -> None:
    call_command("relay", "--status")
    assert capsys.readouterr().out == "default: 0 pending; 0 set aside\n"
    ids = send("a", "b", "c")
    OutboxMessage.objects.filter(pk=ids[1]).update(set_aside_at=timezone.now(), attempts=5, error="broken")
    call_command("relay", "--status")
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith("default: 2 pending, the oldest for 0.")
    assert first.endswith(" seconds; 1 set aside")
    assert second == f"{ids[1]}  to b, 5 attempts: broken"


def test_retry_takes_all_or_those_given(sqlite_database: Any, capsys: pytest.CaptureFixture[str]) -> None:
    ids = send("a", "b", "c")
    OutboxMessage.objects.update(set_aside_at=timezone.now())
    call_command("relay", "--retry", str(ids[0]))
    assert capsys.readouterr().out == "default: 1 to be tried again\n"
    call_command("relay", "--retry")
    assert capsys.readouterr().out == "default: 2 to be tried again\n"


def refusal(*arguments: str) -> str:
    with pytest.raises(CommandError) as caught:
        call_command("relay", *arguments)
    assert caught.value.returncode == CANNOT_START
    return str(caught.value)


def test_unknown_database_is_refused(sqlite_database: Any) -> None:
    assert refusal("--database", "none", "--status") == "DATABASES has no entry 'none'"


def test_in_memory_layers_are_refused(sqlite_database: Any) -> None:
    channel_layers.set("default", InMemoryChannelLayer())
    assert refusal().startswith("expected a channel layer that connects processes")


@override_settings(INSTALLED_APPS=["trio_channels"])
def test_outbox_that_is_not_installed_is_refused() -> None:
    assert "needs 'trio_channels.outbox' in INSTALLED_APPS" in refusal("--status")


def test_layer_that_cannot_be_opened_is_refused(sqlite_database: Any, on_redis: None, settings: Any) -> None:
    config = settings.CHANNEL_LAYERS["default"]["CONFIG"]
    password = {"default": {"BACKEND": REDIS, "CONFIG": {"hosts": [{"address": config["hosts"][0], "password": "x"}]}}}
    settings.CHANNEL_LAYERS = password
    assert "password" in refusal() or "AUTH" in refusal()


@override_settings(TRIO_CHANNELS={"RELAY_BATCH": 0})
def test_wrong_setting_is_refused(sqlite_database: Any, on_redis: None) -> None:
    assert "TRIO_CHANNELS['RELAY_BATCH'] must be" in refusal()
