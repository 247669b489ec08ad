"""Every form of an entry of ``hosts``; and no error shows a password."""

from __future__ import annotations

import socket
import ssl
from typing import Any

import pytest

from trio_channels.exceptions import InvalidChannelLayerError
from trio_channels.layers.redis import RedisStreamsChannelLayer
from trio_channels.layers.redis.hosts import Host, Tls, parse_host

SECRET = "hunter2"

FORMS: list[tuple[Any, Host]] = [
    ("redis://example.org", Host(("example.org", 6379))),
    ("redis://", Host(("localhost", 6379))),
    ("redis://example.org:1234/5", Host(("example.org", 1234), database=5)),
    ("redis://example.org/?db=3", Host(("example.org", 6379), database=3)),
    ("redis://[::1]:7000", Host(("::1", 7000))),
    ("redis://:hunter2@h", Host(("h", 6379), password=SECRET)),
    ("redis://bob:p%40ss%2F@h", Host(("h", 6379), username="bob", password="p@ss/")),
    ("redis://bob@h", Host(("h", 6379), username="bob")),
    ("rediss://h", Host(("h", 6379), tls=Tls())),
    ("rediss://h?ssl_check_hostname=false", Host(("h", 6379), tls=Tls(check_hostname=False))),
    ("rediss://h?ssl_cert_reqs=none", Host(("h", 6379), tls=Tls(check_certificate=False))),
    ("redis://h?ssl=true", Host(("h", 6379), tls=Tls())),
    ("redis://h?ssl=false", Host(("h", 6379))),
    ({"address": "rediss://h", "ssl": True}, Host(("h", 6379), tls=Tls())),
    ({"address": "redis://h/1", "db": 1}, Host(("h", 6379), database=1)),
    ({"username": "bob", "password": ""}, Host(("localhost", 6379), username="bob", password="")),
    ({"username": None, "password": None, "ssl_certfile": None}, Host(("localhost", 6379))),
    ("unix:///run/redis.sock?db=2", Host("/run/redis.sock", database=2)),
    ("unix://bob:hunter2@/run/redis.sock", Host("/run/redis.sock", username="bob", password=SECRET)),
    (("example.org", 1234), Host(("example.org", 1234))),
    (["example.org", "1234"], Host(("example.org", 1234))),
    ({}, Host(("localhost", 6379))),
    ({"host": "h", "port": 1, "db": 2}, Host(("h", 1), database=2)),
    ({"address": "redis://h/1"}, Host(("h", 6379), database=1)),
    ({"address": "redis://h", "password": SECRET}, Host(("h", 6379), password=SECRET)),
    ({"address": ("h", 2), "db": 3}, Host(("h", 2), database=3)),
    ({"path": "/run/redis.sock"}, Host("/run/redis.sock")),
    (
        {"address": "rediss://h", "ssl_cert_reqs": "none", "ssl_check_hostname": False},
        Host(("h", 6379), tls=Tls(check_hostname=False, check_certificate=False)),
    ),
    (
        {"host": "h", "ssl": True, "ssl_cert_reqs": ssl.CERT_REQUIRED},
        Host(("h", 6379), tls=Tls()),
    ),
    (
        {"sentinels": [("a", 1), "b"], "master_name": "m", "password": SECRET, "db": 2},
        Host(None, 2, password=SECRET, sentinels=(Host(("a", 1)), Host(("b", 26379))), master_name="m"),
    ),
    (
        {
            "sentinels": ["a"],
            "master_name": "m",
            "ssl": True,
            "sentinel_kwargs": {"username": "bob", "password": SECRET, "ssl": True, "ssl_check_hostname": False},
        },
        Host(
            None,
            tls=Tls(),
            sentinels=(Host(("a", 26379), 0, "bob", SECRET, Tls(check_hostname=False)),),
            master_name="m",
        ),
    ),
]

WRONG: list[Any] = [
    None,
    5,
    b"redis://h",
    ("h",),
    ("h", 1, 2),
    ("h", 0),
    ("h", 65536),
    ("h", "port"),
    ("h", True),
    ("", 1),
    (None, 1),
    "example.org:6379",
    "http://h",
    "redis:/h:6379",
    "rediss:h:6379",
    "redis://h:port",
    "redis://h:99999",
    "redis://h/database",
    "redis://h/-1",
    "redis://h?unknown=1",
    "redis://[::1",
    "unix://",
    {"cluster": ["redis://h"]},
    {5: 6, "x": 1},
    {"db": "x"},
    {"db": True},
    {"db": "\u0661"},
    {"address": ("h", 1, 2)},
    {"address": 5},
    {"username": 5},
    {"sentinels": [("a", 1)]},
    {"sentinels": [], "master_name": "m"},
    {"sentinels": "a", "master_name": "m"},
    {"sentinels": [None], "master_name": "m"},
    {"sentinels": ["a"], "master_name": ""},
    {"sentinels": ["a"], "master_name": 5},
    {"sentinels": ["a"], "master_name": "m", "sentinel_kwargs": 5},
    {"sentinels": ["a"], "master_name": "m", "sentinel_kwargs": {"db": 5}},
    {"host": "h", "ssl": True, "ssl_ca_certs": "/no/such/file"},
    {"host": "h", "ssl": True, "ssl_certfile": "/no/such/file"},
    {"host": "h", "ssl": True, "ssl_certfile": 5},
    {"host": "h", "ssl": True, "ssl_cert_reqs": "perhaps"},
    {"host": "h", "ssl_check_hostname": True},  # without ssl it would be spoken to in the clear
]

#: Values that would be ignored: one says something, and another one something else.
IGNORED: list[Any] = [
    {"password": ""},
    {"username": ""},
    {"username": "", "password": "x"},
    "redis://:@h",
    "redis://h?password=",
    {"address": "redis://:secret@h", "password": ""},
    {"address": "redis://:secret@h", "password": "another"},
    {"address": "redis://bob:secret@h", "username": "eve"},
    {"address": "redis://h/1", "db": 2},
    "redis://h/1?db=2",
    "redis://h?db=1&db=2",
    "redis://h/1#fragment",
    {"address": "rediss://h", "ssl": False},
    "rediss://h?ssl=false",
    {"host": "h", "ssl": "perhaps"},
    {"host": "h", "ssl": ""},
    {"host": "h", "ssl": False, "ssl_certfile": "/x"},
    {"host": "h", "ssl_cert_reqs": "none"},
    {"host": "h", "ssl": True, "ssl_keyfile": "/x"},
    {"host": "h", "ssl": True, "ssl_password": "x"},
    {"host": "h", "ssl": True, "ssl_cert_reqs": "none", "ssl_check_hostname": True},
    {"address": "redis://h", "host": "i"},
    {"address": ("h", 1), "port": 2},
    {"address": "redis://h", "sentinels": ["a"], "master_name": "m"},
    {"path": "/run/redis.sock", "host": "h"},
    {"path": "/run/redis.sock", "ssl": True},
    {"path": 5},
    "unix:///run/redis.sock?ssl=true",
    "unix://run/redis.sock",
    {"sentinels": ["a"], "master_name": "m", "host": "h"},
    {"host": "h", "master_name": "m"},
    {"host": "h", "sentinel_kwargs": {}},
    {"sentinels": ["a"], "master_name": "m", "sentinel_kwargs": {"password": ""}},
]

#: Each holds the password where a mistake may put it.
WRONG_WITH_A_PASSWORD: list[Any] = [
    "redis://:hunter2/x@h",
    "redis://user:hunter2#@h",
    "redis://:a/hunter2@h",
    "redis://:a/hunter2@h:6379/0",
    "redis://:a?hunter2=@h",
    "redis://:12?hunter2@h",
    "redis://:12#hunter2@h",
    "redis://:12/hunter2@h",
    {"address": "redis://:another@h", "password": SECRET},
    {"password": SECRET, "ssl": SECRET},
    "hunter2://h",
    "redis://user:hunter2:6379",
    "redis://[hunter2",
    {"password": [SECRET]},
    {"sentinels": ["a"], "master_name": "m", "sentinel_kwargs": SECRET},
    {"sentinels": ["a"], "master_name": "m", "sentinel_kwargs": {"password": [SECRET]}},
    {"host": "h", "ssl": True, "ssl_password": [SECRET]},
    {"address": ("h", SECRET)},
    {"db": SECRET},
    {"host": "h", "port": SECRET},
    ("h", SECRET),
]


@pytest.mark.parametrize(("entry", "host"), FORMS, ids=repr)
def test_each_form_means_a_host(entry: Any, host: Host) -> None:
    assert parse_host(entry) == host


@pytest.mark.parametrize("entry", WRONG + IGNORED, ids=repr)
def test_what_is_no_host_is_refused(entry: Any) -> None:
    with pytest.raises(InvalidChannelLayerError):
        parse_host(entry)


@pytest.mark.parametrize("entry", WRONG_WITH_A_PASSWORD, ids=repr)
def test_error_shows_no_password(entry: Any) -> None:
    with pytest.raises(InvalidChannelLayerError) as caught:
        parse_host(entry)
    error: BaseException | None = caught.value
    while error is not None:
        assert SECRET not in str(error)
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


@pytest.mark.parametrize(("entry", "host"), FORMS, ids=repr)
def test_host_shows_no_password(entry: Any, host: Host) -> None:
    assert SECRET not in repr(host) + str(host)
    assert "p@ss" not in repr(host) + str(host)


@pytest.mark.parametrize(
    "hosts",
    [
        [],
        None,
        5,
        {"cluster": []},
        {"cluster": "redis://h"},
        {"cluster": ["redis://h"], "shards": 0},
        {"cluster": ["redis://h"], "shards": "x"},
        {"cluster": ["redis://h"], "shards": True},
        {"cluster": ["redis://h"], "unknown": 1},
        {"cluster": ["redis://h/1"]},
        {"cluster": [{"sentinels": ["a"], "master_name": "m"}]},
        {"host": "h"},
    ],
    ids=repr,
)
def test_hosts_that_are_no_list_are_refused(hosts: Any) -> None:
    with pytest.raises(InvalidChannelLayerError):
        RedisStreamsChannelLayer(hosts=hosts)


@pytest.mark.parametrize(
    "options",
    [
        {"prefix": ""},
        {"prefix": 5},
        {"prefix": "a{b}"},
        {"symmetric_encryption_keys": []},
        {"timeout": 0},
        {"timeout": float("inf")},
        {"expiry": float("inf")},
        {"inbox_capacity": 0},
        {"serializer_format": "pickle"},
    ],
    ids=repr,
)
def test_impossible_option_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(InvalidChannelLayerError):
        RedisStreamsChannelLayer(**options)


@pytest.mark.parametrize(
    ("entry", "meant"),
    [
        ({"pasword": "x"}, "did you mean 'password'?"),
        ({"SSL_CA_CERT": "x"}, "did you mean 'ssl_ca_certs'?"),
        ("redis://h?database=1", "Known: address, db, host"),
        ("redis://h?sssl=1", "did you mean 'ssl'?"),
        ({"sentinels": ["a"], "master_name": "m", "sentinel_kwargs": {"user": "x"}}, "did you mean 'username'?"),
    ],
    ids=repr,
)
def test_unknown_key_is_named_with_the_nearest(entry: Any, meant: str) -> None:
    with pytest.raises(InvalidChannelLayerError) as caught:
        parse_host(entry)
    assert meant in str(caught.value)


def test_tls_checks_certificate_and_name_unless_told_otherwise() -> None:
    checked, unchecked = Tls().context(), Tls(check_hostname=False).context()
    assert (checked.check_hostname, checked.verify_mode) == (True, ssl.CERT_REQUIRED)
    assert (unchecked.check_hostname, unchecked.verify_mode) == (False, ssl.CERT_REQUIRED)
    nothing = Tls(check_certificate=False).context()
    assert (nothing.check_hostname, nothing.verify_mode) == (False, ssl.CERT_NONE)


def test_certificate_file_that_cannot_be_used_is_named() -> None:
    with pytest.raises(InvalidChannelLayerError, match="/no/such/file"):
        parse_host("rediss://h?ssl_ca_certs=/no/such/file")


def test_unix_sockets_need_a_system_that_has_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(socket, "AF_UNIX")
    with pytest.raises(InvalidChannelLayerError, match=r"no unix sockets, such as /run/redis\.sock; use redis://host"):
        parse_host("unix:///run/redis.sock")


@pytest.mark.parametrize("uri", ["localhost", "localhost:6379", "http://localhost", "redis:/h:6379", "redis:h", ""])
def test_uri_of_another_form_is_told_the_right_one(uri: str) -> None:
    with pytest.raises(InvalidChannelLayerError, match=r"begins with redis://, .*, such as redis://localhost:6379/0"):
        parse_host(uri)
