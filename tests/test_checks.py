"""The system checks, by their ids."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings as django_settings
from django.core import checks
from django.test import override_settings

from trio_channels.checks import TAG, register

MEMORY = "trio_channels.layers.InMemoryChannelLayer"
REDIS = "trio_channels.layers.redis.RedisStreamsChannelLayer"
POSTGRES = {"ENGINE": "django.db.backends.postgresql", "NAME": "site"}

GOOD: dict[str, Any] = {
    "ASGI_APPLICATION": "mysite.asgi.application",
    "INSTALLED_APPS": ["trio_channels", "django.contrib.staticfiles"],
    "CHANNEL_LAYERS": {"default": {"BACKEND": REDIS}},
    "TRIO_CHANNELS": {},
    "DATABASES": {"default": POSTGRES | {"CONN_MAX_AGE": None}},
    "DEBUG": False,
}

register()


def found(deploy: bool = True, **settings: Any) -> list[checks.CheckMessage]:
    """The messages of the checks for the good settings with these changes."""
    wanted = GOOD | settings
    # Set without the signal that makes Django load apps and connect to databases: the checks only read settings.
    quiet = {name: wanted.pop(name) for name in ("INSTALLED_APPS", "DATABASES")}
    with override_settings(**wanted), pytest.MonkeyPatch.context() as patch:
        for name, value in quiet.items():
            patch.setattr(django_settings, name, value)
        return checks.run_checks(tags=[TAG], include_deployment_checks=deploy)


def layer(**entry: Any) -> dict[str, Any]:
    return {"CHANNEL_LAYERS": {"default": entry}}


def database(**options: Any) -> dict[str, Any]:
    return {"DATABASES": {"default": POSTGRES | options}}


def test_good_settings_are_not_commented_upon() -> None:
    assert found() == []


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"ASGI_APPLICATION": None}, "W001"),
        ({"ASGI_APPLICATION": "application"}, "E002"),
        ({"ASGI_APPLICATION": object()}, "E002"),
        ({"TRIO_CHANNELS": {"WORKER_THREAD": 10}}, "E003"),
        ({"TRIO_CHANNELS": {"WORKER_THREADS": 0}}, "E003"),
        ({"TRIO_CHANNELS": {"ACCEPT_TIMEOUT": -1}}, "E003"),
        ({"TRIO_CHANNELS": ["WORKER_THREADS"]}, "E003"),
        ({"INSTALLED_APPS": ["django.contrib.staticfiles", "trio_channels"]}, "W004"),
        ({"INSTALLED_APPS": ["django.contrib.staticfiles", "trio_channels.apps.TrioChannelsConfig"]}, "W004"),
        ({"CHANNEL_LAYERS": ["default"]}, "E006"),
        (layer(), "E006"),
        (layer(BACKEND="no.such.Layer"), "E006"),
        (layer(BACKEND=MEMORY, CONFIG={"capacity": 0}) | {"DEBUG": True}, "E006"),
        (layer(BACKEND=REDIS, CONFIG={"hosts": []}), "E006"),
        (layer(BACKEND=REDIS, CONFIG={"no_such_argument": 1}), "E006"),
        (layer(BACKEND=REDIS, ROUTING="mysite.routing"), "E007"),
        (layer(BACKEND="channels.layers.InMemoryChannelLayer"), "E008"),
        (layer(BACKEND="channels_redis.core.RedisChannelLayer"), "E008"),
        (layer(BACKEND="builtins.dict"), "E008"),
        (layer(BACKEND=MEMORY), "W009"),
        (database(), "W010"),
        (database(CONN_MAX_AGE=0), "W010"),
        ({"TRIO_CHANNELS": {"HARDEN_HYPERCORN": False}}, "W011"),
    ],
)
def test_setting_that_will_hurt_is_named(settings: dict[str, Any], expected: str) -> None:
    assert [message.id for message in found(**settings)] == [f"trio_channels.{expected}"]


@pytest.mark.parametrize(
    "settings",
    [
        {"INSTALLED_APPS": ["trio_channels"]},
        {"CHANNEL_LAYERS": {}},
        {"DATABASES": {}},
        {"DATABASES": {"default": {"ENGINE": "django.db.backends.sqlite3", "CONN_MAX_AGE": 0}}},
        database(CONN_MAX_AGE=60),
        database(CONN_MAX_AGE=0, OPTIONS={"pool": True}),
        database(CONN_MAX_AGE=0) | {"TRIO_CHANNELS": {"WORKER_THREADS": 1}},
        layer(BACKEND=MEMORY) | {"DEBUG": True},
    ],
)
def test_setting_that_is_fine_is_left_alone(settings: dict[str, Any]) -> None:
    assert found(**settings) == []


@pytest.mark.parametrize("app", ["channels", "daphne"])
def test_app_that_runs_on_asyncio_is_named(app: str) -> None:
    messages = found(INSTALLED_APPS=[*GOOD["INSTALLED_APPS"], app])
    assert [message.id for message in messages] == ["trio_channels.W005"]
    assert [app in message.msg for message in messages] == [True]


@pytest.mark.parametrize(
    "settings", [layer(BACKEND=MEMORY), database(), {"TRIO_CHANNELS": {"HARDEN_HYPERCORN": False}}]
)
def test_what_concerns_a_deployed_site_is_said_with_deploy_only(settings: dict[str, Any]) -> None:
    assert found(deploy=False, **settings) == []


def test_every_message_has_a_hint_or_says_itself_what_to_do() -> None:
    messages = found(ASGI_APPLICATION=None, CHANNEL_LAYERS={"default": {"BACKEND": "builtins.dict"}}, **database())
    assert len(messages) == 3
    assert all(message.hint for message in messages)


def test_error_in_one_setting_is_said_once() -> None:
    wrong = {"TRIO_CHANNELS": {"X": 1}, "CHANNEL_LAYERS": []}
    assert sorted(str(message.id) for message in found(**wrong)) == ["trio_channels.E003", "trio_channels.E006"]


def test_apps_are_checked_and_an_asgi_process_does_not_start() -> None:
    script = (
        "from django.conf import settings\n"
        "settings.configure(INSTALLED_APPS=['trio_channels'], TRIO_CHANNELS={'WORKER_THREAD': 1}, SECRET_KEY='x',\n"
        "    ROOT_URLCONF=__name__, ASGI_APPLICATION='a.b')\n"
        "urlpatterns = []\n"
        "import django; django.setup()\n"
        "from django.core.management import call_command, base\n"
        "try: call_command('check')\n"
        "except base.SystemCheckError as error: print('E003' in str(error), 'WORKER_THREADS' in str(error))\n"
        "from trio_channels.asgi import get_asgi_application\n"
        "from trio_channels.exceptions import ConfigurationError\n"
        "try: get_asgi_application()\n"
        "except ConfigurationError as error: print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], env=os.environ, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    first, second = done.stdout.splitlines()
    assert first == "True True"
    assert "has no key 'WORKER_THREAD'; did you mean 'WORKER_THREADS'?" in second


@pytest.mark.parametrize(
    ("line", "replacement"),
    [
        ("from django.core.asgi import get_asgi_application", "trio_channels.asgi"),
        ("import os, django.core.asgi", "trio_channels.asgi"),
        ("from channels.routing import ProtocolTypeRouter, URLRouter", "trio_channels.routing"),
        (
            "from channels.security.websocket import AllowedHostsOriginValidator",
            "trio_channels.security.websocket",
        ),
    ],
)
def test_asgi_module_that_imports_asyncios_is_an_error(
    line: str, replacement: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "half_migrated_asgi.py").write_text(f"raise SystemExit  # checked, and not run\n{line}\n")
    [error] = found(ASGI_APPLICATION="half_migrated_asgi.application")
    assert (error.id, error.hint) == ("trio_channels.E012", f"Import the same name from {replacement}.")
    assert "half_migrated_asgi, line" in error.msg


@pytest.mark.parametrize(
    ("line", "package", "extra"),
    [
        ("from trio_channels.metrics import MetricsApplication", "prometheus_client", "metrics"),
        ("import trio_channels.metrics", "prometheus_client", "metrics"),
        ("from trio_channels import tracing", "opentelemetry", "otel"),
    ],
)
def test_asgi_module_that_needs_a_missing_extra_is_an_error(
    line: str, package: str, extra: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "watched_asgi.py").write_text(f"import os\n{line}\n")
    find_spec = importlib.util.find_spec
    assert found(ASGI_APPLICATION="watched_asgi.application") == []
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == package else find_spec(name))
    [error] = found(ASGI_APPLICATION="watched_asgi.application")
    assert (error.id, error.hint) == ("trio_channels.E013", f"Install it: pip install 'trio-channels[{extra}]'.")
    assert f"watched_asgi, line 2, imports trio_channels.{'metrics' if extra == 'metrics' else 'tracing'}" in error.msg


_DJANGOS = "from django.core.asgi import get_asgi_application"


@pytest.mark.parametrize(
    "text",
    [
        "from trio_channels.asgi import get_asgi_application",
        "from channels.routing import URLRouter",
        f"if False:\n    {_DJANGOS}",
        f"try:\n    from trio_channels.asgi import get_asgi_application\nexcept ImportError:\n    {_DJANGOS}",
        f"{_DJANGOS}\nfrom trio_channels.asgi import get_asgi_application",
        "from .django.core.asgi import get_asgi_application",
        "import os, django.core.handlers",
        "def :",
        "",
        None,
    ],
)
def test_other_asgi_module_is_not_commented_upon(
    text: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    if text is not None:
        (tmp_path / "own_asgi.py").write_text(text)
    assert found(ASGI_APPLICATION="own_asgi.application") == []
