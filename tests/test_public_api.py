"""Public names exist, are documented, and can be imported without a Django project."""

from __future__ import annotations

import importlib
import os
import pkgutil
import subprocess
import sys
import types
from typing import Any

import pytest
from django.db.models.base import ModelBase

import trio_channels
from trio_channels import exceptions


def is_public(name: str) -> bool:
    return not any(part.startswith("_") for part in name.split("."))


PUBLIC = sorted(
    info.name
    for info in pkgutil.walk_packages(trio_channels.__path__, "trio_channels.")
    if is_public(info.name)
    and ".management" not in info.name
    and not info.name.endswith(".admin")  # Django imports these where its admin is installed
    # They change asyncio for the whole process: tests/compat/inside imports them in one of its own.
    and not info.name.startswith("trio_channels.compat.")
)


def exports(name: str) -> list[tuple[str, Any]]:
    module = importlib.import_module(name)
    return [(export, getattr(module, export, None)) for export in getattr(module, "__all__", ())]


def test_top_of_the_package_is_exactly_this() -> None:
    assert trio_channels.__all__ == [
        "DEFAULT_CHANNEL_LAYER",
        "ConnectionClosed",
        "Limits",
        "TrioChannelsError",
        "WebSocket",
        "websocket",
    ]


@pytest.mark.parametrize("name", ["trio_channels", *PUBLIC])
def test_public_module_says_what_it_is(name: str) -> None:
    module = importlib.import_module(name)
    assert (module.__doc__ or "").strip()


@pytest.mark.parametrize("name", ["trio_channels", *PUBLIC])
def test_every_exported_name_exists_once(name: str) -> None:
    names = [export for export, _ in exports(name)]
    assert [export for export in names if not hasattr(importlib.import_module(name), export)] == []
    assert len(names) == len(set(names))


@pytest.mark.parametrize("name", ["trio_channels", *PUBLIC])
def test_every_exported_class_and_function_is_documented(name: str) -> None:
    documented = (type, types.FunctionType)
    assert [export for export, value in exports(name) if isinstance(value, documented) and not value.__doc__] == []


def test_every_error_is_in_one_tree_and_documented() -> None:
    errors = [value for value in vars(exceptions).values() if isinstance(value, type) and issubclass(value, Exception)]
    assert len(errors) > 20
    for error in errors:
        assert issubclass(error, exceptions.TrioChannelsError)
        assert error.__doc__


@pytest.mark.parametrize(
    "name", ["trio_channels", *(f"trio_channels.{name}" for name in ("layers", "routing", "consumer", "websocket"))]
)
def test_module_can_be_imported_without_a_django_project(name: str) -> None:
    environment = {key: value for key, value in os.environ.items() if key != "DJANGO_SETTINGS_MODULE"}
    program = f"import {name}; from django.conf import settings; print(settings.configured)"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program], env=environment, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "False\n", "")


# -- errors with data -------------------------------------------------------------------------------------------------


def test_closed_connection_tells_code_and_reason() -> None:
    assert str(exceptions.ConnectionClosed(1001, "bye")) == "the connection is closed (code 1001, bye)"
    assert str(exceptions.ConnectionClosed(1001)) == "the connection is closed (code 1001)"
    assert str(exceptions.ConnectionClosed()) == "the connection is closed (no code)"


def test_accept_and_deny_carry_what_the_connection_is_answered_with() -> None:
    assert exceptions.AcceptConnection("chat").subprotocol == "chat"
    denied = exceptions.DenyConnection(404, iter([(b"a", b"b")]), b"gone")
    assert (denied.status, denied.headers, denied.body) == (404, [(b"a", b"b")], b"gone")


@pytest.mark.parametrize("app", ["inspector", "outbox"])
def test_models_belong_to_their_app_before_it_is_installed(app: str) -> None:
    models = importlib.import_module(f"trio_channels.{app}.models")
    found = [value for value in vars(models).values() if isinstance(value, ModelBase)]
    assert found
    assert {model._meta.app_label for model in found} == {f"trio_channels_{app}"}
