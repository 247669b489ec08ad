"""The modules of Channels, with the alias installed."""

from __future__ import annotations

import importlib
import sys

import channels
import channels.layers
import channels.testing
import channels_redis.core
import pytest

import trio_channels.exceptions
from trio_channels import compat
from trio_channels.compat import alias, names


def test_it_is_installed_once() -> None:
    compat.install()
    assert compat.installed()
    assert sys.meta_path.count(alias.FINDER) == 1


def test_names_are_those_of_trio_channels() -> None:
    from channels.exceptions import StopConsumer
    from channels.routing import URLRouter

    assert StopConsumer is trio_channels.exceptions.StopConsumer
    assert URLRouter.__module__ == "trio_channels.routing"
    assert channels.DEFAULT_CHANNEL_LAYER == "default"
    assert channels.__version__ == channels_redis.__version__ == alias.VERSION


@pytest.mark.parametrize("module", alias.REPLACED)
def test_variants_are_those_of_this_package(module: str) -> None:
    here, replaced = alias.REPLACED[module]
    for name in replaced:
        imported = importlib.import_module(module)
        assert getattr(imported, name) is getattr(importlib.import_module(f"trio_channels.compat.{here}"), name)
        assert name in imported.__all__
        assert name in dir(imported)


@pytest.mark.parametrize("module", names.defined())
def test_star_import_gives_all_that_is_there(module: str) -> None:
    found: dict[str, object] = {}
    exec(f"from {module} import *", found)
    assert set(importlib.import_module(module).__all__) <= set(found)


def test_imported_name_is_the_variant_of_its_definition() -> None:
    from channels.auth import database_sync_to_async
    from channels.consumer import get_channel_layer
    from channels.security.websocket import AsyncWebsocketConsumer

    assert database_sync_to_async is channels.db.database_sync_to_async
    assert get_channel_layer is channels.layers.get_channel_layer
    assert AsyncWebsocketConsumer is channels.generic.websocket.AsyncWebsocketConsumer


def test_submodule_is_an_attribute() -> None:
    assert channels.routing is sys.modules["channels.routing"]


def test_missing_name_says_what_replaces_it() -> None:
    with pytest.raises(ImportError, match=r"no channels_redis\.core\.ChannelLock\. asyncio's; mailboxes"):
        from channels_redis.core import ChannelLock  # noqa: F401
    with pytest.raises(AttributeError, match="has no attribute '__path_of_nothing__'"):
        channels.layers.__path_of_nothing__  # noqa: B018
