"""Options of channels_redis and redis-py: ignored with the reason where that is safe, and refused elsewhere."""

from __future__ import annotations

import ssl
from typing import Any

import pytest

from trio_channels.exceptions import InvalidChannelLayerError
from trio_channels.layers import ChannelLayerManager
from trio_channels.layers.redis import RedisStreamsChannelLayer
from trio_channels.layers.redis.hosts import Host, Tls, parse_host
from trio_channels.layers.redis.ignored import HOST_OPTIONS, LAYER_OPTIONS

HOST = Host(("h", 6379))


@pytest.mark.parametrize("option", HOST_OPTIONS)
@pytest.mark.parametrize("entry", [{"address": "redis://h"}, {"address": ("h", 6379)}, {"host": "h"}], ids=repr)
def test_option_of_redis_py_is_ignored_aloud(
    option: str, entry: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    assert parse_host({**entry, option: 5}) == HOST
    assert caplog.messages == [f"an entry of hosts: {option} is ignored: {HOST_OPTIONS[option]}. Remove it"]


def test_option_in_a_query_is_ignored_aloud(caplog: pytest.LogCaptureFixture) -> None:
    assert parse_host("redis://h?health_check_interval=30&db=2") == Host(("h", 6379), database=2)
    assert "health_check_interval is ignored" in caplog.text


def test_option_for_sentinels_is_ignored_aloud(caplog: pytest.LogCaptureFixture) -> None:
    entry = {"sentinels": ["a"], "master_name": "m", "socket_timeout": 1, "sentinel_kwargs": {"socket_keepalive": True}}
    assert parse_host(entry) == Host(None, sentinels=(Host(("a", 26379)),), master_name="m")
    assert {message.split(": ")[1] for message in caplog.messages} == {
        "socket_timeout is ignored",
        "socket_keepalive is ignored",
    }


@pytest.mark.parametrize("option", LAYER_OPTIONS)
def test_option_of_channels_redis_is_ignored_aloud(
    option: str, settings: Any, caplog: pytest.LogCaptureFixture
) -> None:
    backend = "trio_channels.layers.redis.RedisStreamsChannelLayer"
    settings.CHANNEL_LAYERS = {"default": {"BACKEND": backend, "CONFIG": {option: 8}}}
    assert isinstance(ChannelLayerManager()["default"], RedisStreamsChannelLayer)
    assert caplog.messages == [f"the Redis channel layer: {option} is ignored: {LAYER_OPTIONS[option]}. Remove it"]


def test_layer_without_such_options_warns_of_nothing(caplog: pytest.LogCaptureFixture) -> None:
    RedisStreamsChannelLayer(hosts=["redis://h"])
    assert not caplog.messages


@pytest.mark.parametrize(
    "key", ["ssl_ca_path", "ssl_ca_data", "ssl_min_version", "ssl_ciphers", "credential_provider", "sockt_timeout"]
)
def test_option_that_matters_is_refused(key: str) -> None:
    with pytest.raises(InvalidChannelLayerError, match=f"has no key '{key}'"):
        parse_host({"host": "h", key: "x"})


@pytest.mark.parametrize("given", ["redis://h:1", ["redis://h:1"], [("h", 1)], ("redis://h:1",)], ids=repr)
def test_one_host_may_be_written_without_a_list(given: Any) -> None:
    assert "h:1" in repr(RedisStreamsChannelLayer(hosts=given))


@pytest.mark.parametrize(
    ("value", "checks"),
    [
        *((value, True) for value in ("required", "optional", "CERT_REQUIRED", "CERT_OPTIONAL", ssl.CERT_OPTIONAL)),
        *((value, False) for value in ("none", "CERT_NONE", None, ssl.CERT_NONE)),
    ],
)
def test_each_form_of_ssl_cert_reqs(value: Any, checks: bool) -> None:
    host = parse_host({"host": "h", "ssl": True, "ssl_cert_reqs": value})
    assert host == Host(("h", 6379), tls=Tls(check_certificate=checks))


@pytest.mark.parametrize("name", ["serialize", "deserialize"])
def test_format_of_a_subclass_is_refused(name: str) -> None:
    with pytest.raises(InvalidChannelLayerError, match=rf"^Mine\.{name}\(\) would never .* serializer_format"):
        type("Mine", (RedisStreamsChannelLayer,), {name: lambda self, message: message, "__qualname__": "Mine"})


def test_format_of_a_mixin_is_refused() -> None:
    mixin = type("Mixin", (), {"serialize": lambda self, message: message})
    with pytest.raises(InvalidChannelLayerError, match="serializer_format"):
        type("Mine", (mixin, RedisStreamsChannelLayer), {})


def test_subclass_without_a_format_is_fine() -> None:
    class Mine(RedisStreamsChannelLayer):
        def describe(self) -> str:
            return "mine"

    assert Mine().describe() == "mine"
