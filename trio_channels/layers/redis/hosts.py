"""The ``hosts`` setting, in every form that channels_redis accepts."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from ..._limits import suggestion
from ...exceptions import InvalidChannelLayerError
from .ignored import HOST_OPTIONS, without_ignored

PORT, SENTINEL_PORT = 6379, 26379

_TLS_KEYS = {"ssl_ca_certs", "ssl_certfile", "ssl_keyfile", "ssl_password", "ssl_check_hostname", "ssl_cert_reqs"}
#: The one way in which an entry says where the server is, and the keys that mean nothing beside it.
_PLACES = {
    "address": {"host", "port", "path", "sentinels", "master_name", "sentinel_kwargs"},
    "sentinels": {"host", "port", "path"},
    "path": {"host", "port"} | {"ssl"} | _TLS_KEYS,
}
_SENTINEL_KEYS = {"username", "password", "ssl"} | _TLS_KEYS
_KEYS = {"address", "host", "port", "path", "db", "sentinels", "master_name", "sentinel_kwargs"} | _SENTINEL_KEYS


@dataclass(frozen=True, slots=True)
class Tls:
    """The TLS options of a connection."""

    ca_certs: str | None = None
    certfile: str | None = None
    keyfile: str | None = None
    password: str | None = field(default=None, repr=False)
    check_hostname: bool = True
    check_certificate: bool = True  # without, anybody can pose as the server

    def context(self) -> ssl.SSLContext:
        """An SSL context. The files are read for each one, as certificates are renewed."""
        context = ssl.create_default_context(cafile=self.ca_certs)
        context.check_hostname = self.check_hostname and self.check_certificate
        if not self.check_certificate:
            context.verify_mode = ssl.CERT_NONE
        if self.certfile is not None:
            # Without a password OpenSSL asks for one on the terminal.
            context.load_cert_chain(self.certfile, self.keyfile, self.password or "")
        return context


@dataclass(frozen=True, slots=True)
class Host:
    """One Redis server, or the sentinels that know its address by `master_name`."""

    address: tuple[str, int] | str | None
    database: int = 0
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    tls: Tls | None = None
    sentinels: tuple[Host, ...] = ()
    master_name: str | None = None

    def at(self, address: tuple[str, int]) -> Host:
        """The same server at an address that was found."""
        return replace(self, address=address, sentinels=(), master_name=None)

    def __str__(self) -> str:
        if self.address is None:
            return f"sentinel master {self.master_name!r}"
        return self.address if isinstance(self.address, str) else f"{self.address[0]}:{self.address[1]}"


def parse_host(entry: object) -> Host:
    """Parse one entry of ``hosts``: a URI, a (host, port) pair, or a dict with some of the keys ``_KEYS``."""
    if isinstance(entry, str):
        return _parse_uri(entry, {})
    if isinstance(entry, list | tuple) and len(entry) == 2:
        return Host(_address(entry, PORT))
    if isinstance(entry, Mapping):
        return _parse_dict(entry)
    raise InvalidChannelLayerError(
        "an entry of hosts must be a URI such as 'redis://host:6379/0', 'rediss://host' or 'unix:///path', a (host, "
        f"port) pair or a dict; got a {type(entry).__name__}"
    )


def _parse_dict(entry: Mapping[str, Any]) -> Host:
    entry = without_ignored(entry)
    _check_keys(entry, _KEYS, "an entry of hosts")
    for place, ignored in _PLACES.items():
        beside = sorted(ignored & set(entry)) if place in entry else []
        if beside:
            raise InvalidChannelLayerError(f"an entry of hosts with {place!r} cannot have {', '.join(beside)}")
    options = {key: value for key, value in entry.items() if key != "address"}
    if "address" in entry:
        if isinstance(entry["address"], str):
            return _parse_uri(entry["address"], options)
        options["host"], options["port"] = _address(entry["address"], PORT)
    common = _login(options) | {"database": _database(options.get("db", 0))}
    if "sentinels" in options:
        name = options.get("master_name")
        if not isinstance(name, str) or not name:
            raise InvalidChannelLayerError("an entry of hosts with sentinels needs a master_name, a non-empty str")
        return Host(None, **common, sentinels=_sentinels(options), master_name=name)
    if not {"master_name", "sentinel_kwargs"}.isdisjoint(options):
        raise InvalidChannelLayerError("an entry of hosts with master_name or sentinel_kwargs needs sentinels")
    if "path" in options:
        path = _text("path", options)
        if not path:
            raise InvalidChannelLayerError("the path of a unix socket must not be empty; write unix:///run/redis.sock")
        if not hasattr(socket, "AF_UNIX"):
            raise InvalidChannelLayerError(f"this system has no unix sockets, such as {path}; use redis://host:6379")
        return Host(path, **common)
    return Host(_address((options.get("host", "localhost"), options.get("port", PORT)), PORT), **common)


def _check_keys(entry: Mapping[str, Any], known: set[str], name: str) -> None:
    for key in entry:
        if key not in known:
            raise InvalidChannelLayerError(f"{name} has no key {key!r}{suggestion(key, sorted(known))}")


def _sentinels(options: Mapping[str, Any]) -> tuple[Host, ...]:
    addresses, kwargs = options["sentinels"], options.get("sentinel_kwargs") or {}
    if not isinstance(addresses, list | tuple) or not addresses:
        raise InvalidChannelLayerError(
            f"the sentinels of an entry of hosts must be a non-empty list; got {type(addresses).__name__}"
        )
    if not isinstance(kwargs, Mapping):
        raise InvalidChannelLayerError(f"sentinel_kwargs must be a dict; got a {type(kwargs).__name__}")
    kwargs = without_ignored(kwargs)
    _check_keys(kwargs, _SENTINEL_KEYS, "sentinel_kwargs")
    login = _login(kwargs)
    return tuple(Host(_address(address, SENTINEL_PORT), **login) for address in addresses)


def _login(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options that servers and sentinels share."""
    username, password = _text("username", options), _text("password", options)
    if username == "" or (password == "" and username is None):
        # Redis would be used without a login, perhaps because a variable of the environment was not set.
        raise InvalidChannelLayerError(
            f"the {'username' if username == '' else 'password'} of an entry of hosts is empty; leave it out, or give "
            f"None, to use Redis without it"
        )
    return {"username": username, "password": password, "tls": _tls(options)}


def _parse_uri(uri: str, options: Mapping[str, Any]) -> Host:
    # A URI that cannot be parsed is not shown: any part of it may belong to the password.
    try:
        parts = urlsplit(uri)
        port = parts.port
    except ValueError:
        raise InvalidChannelLayerError(
            "a host of the channel layer is not a URI such as redis://user:password@host:6379/0; "
            "a password with one of the characters :/?#[]@% must have them percent-encoded"
        ) from None
    is_of_server = parts.scheme in ("redis", "rediss") and "://" in uri
    if not is_of_server and parts.scheme != "unix":
        raise InvalidChannelLayerError(
            "a host of the channel layer must be a URI that begins with redis://, rediss:// or unix://, such as "
            "redis://localhost:6379/0"
        )
    if parts.fragment:
        raise InvalidChannelLayerError("a host of the channel layer has a '#'; in a password write %23")
    query = parse_qsl(parts.query, keep_blank_values=True)
    for key, _ in query:
        if key not in _KEYS and key not in HOST_OPTIONS:
            # Without the key: it may be a part of the password.
            raise InvalidChannelLayerError(
                f"the query of a host of the channel layer has an unknown key{suggestion(key, sorted(_KEYS))}"
            )
    given = [*query, *options.items()]
    if parts.username:
        given.append(("username", unquote(parts.username)))
    if parts.password:
        given.append(("password", unquote(parts.password)))
    elif parts.password == "" and not parts.username:
        raise InvalidChannelLayerError("a host of the channel layer has an empty password; leave out ':@'")
    if parts.scheme == "unix":
        if parts.hostname:
            raise InvalidChannelLayerError("the path of a unix socket begins with '/'; write unix:///run/redis.sock")
        return _parse_dict(_each_once([*given, ("path", unquote(parts.path))]))
    if database := parts.path.strip("/"):
        given.append(("db", database))
    given += [("host", parts.hostname or "localhost"), ("port", port or PORT)]
    merged = _each_once(given)
    if parts.scheme == "rediss" and not _flag("ssl", merged, default=True):
        raise InvalidChannelLayerError("an entry of hosts has ssl=False and a rediss:// address; write redis://")
    return _parse_dict(merged | {"ssl": True} if parts.scheme == "rediss" else merged)


def _each_once(given: list[tuple[str, Any]]) -> dict[str, Any]:
    merged: dict[str, Any] = {}
    for key, value in given:
        if key in merged and str(merged[key]) != str(value):
            raise InvalidChannelLayerError(f"an entry of hosts has two values for {key}; give one")
        merged[key] = value
    return merged


def _tls(options: Mapping[str, Any]) -> Tls | None:
    given = {key for key in _TLS_KEYS if options.get(key) is not None}
    if not _flag("ssl", options, default=False):
        if given:
            raise InvalidChannelLayerError(
                "an entry of hosts has TLS options, but TLS is off: use rediss:// or ssl=True"
            )
        return None
    if "ssl_certfile" not in given and not given.isdisjoint({"ssl_keyfile", "ssl_password"}):
        raise InvalidChannelLayerError("ssl_keyfile and ssl_password of an entry of hosts need an ssl_certfile")
    tls = Tls(
        ca_certs=_text("ssl_ca_certs", options),
        certfile=_text("ssl_certfile", options),
        keyfile=_text("ssl_keyfile", options),
        password=_text("ssl_password", options),
        check_hostname=_flag("ssl_check_hostname", options, default=True),
        check_certificate=_checks_certificate(options),
    )
    if tls.check_hostname and "ssl_check_hostname" in given and not tls.check_certificate:
        raise InvalidChannelLayerError("ssl_check_hostname of an entry of hosts needs ssl_cert_reqs='required'")
    try:
        tls.context()
    except OSError as error:  # SSLError is one
        files = [file for file in (tls.ca_certs, tls.certfile, tls.keyfile) if file]
        raise InvalidChannelLayerError(f"the TLS files {files} of an entry of hosts cannot be used: {error}") from error
    return tls


def _flag(key: str, options: Mapping[str, Any], *, default: bool) -> bool:
    value = options.get(key, default)
    match str(value).lower():  # a query has texts
        case "true" | "1" | "yes":
            return True
        case "false" | "0" | "no" | "none":
            return False
    raise InvalidChannelLayerError(
        f"the {key} of an entry of hosts must be True or False; got a {type(value).__name__}"
    )


def _checks_certificate(options: Mapping[str, Any]) -> bool:
    wanted = options.get("ssl_cert_reqs", "required")
    match wanted:
        case "required" | "optional" | "CERT_REQUIRED" | "CERT_OPTIONAL" | ssl.CERT_REQUIRED | ssl.CERT_OPTIONAL:
            return True  # every server has a certificate, so that "optional" is the same
        case "none" | "None" | "CERT_NONE" | None | ssl.CERT_NONE:  # as redis-py and Celery accept it
            return False
    raise InvalidChannelLayerError(f"ssl_cert_reqs of an entry of hosts must be 'required' or 'none'; got {wanted!r}")


def _text(key: str, options: Mapping[str, Any]) -> str | None:
    value = options.get(key)
    if value is not None and not isinstance(value, str):
        raise InvalidChannelLayerError(f"the {key} of an entry of hosts must be a str; got a {type(value).__name__}")
    return value


def _database(number: object) -> int:
    if not _is_number(number):
        raise InvalidChannelLayerError(
            "the database of an entry of hosts must be a number, such as 0 in redis://host:6379/0"
        )
    return int(str(number))


def _address(pair: object, default_port: int) -> tuple[str, int]:
    match (pair, default_port) if isinstance(pair, str) else pair:
        case (str(host), port) if host and _is_number(port) and 0 < int(str(port)) < 65536:
            return host, int(str(port))
    raise InvalidChannelLayerError("an address in hosts must be a host name and a port from 1 to 65535")


def _is_number(value: object) -> bool:
    text = str(value)
    return not isinstance(value, bool) and text.isascii() and text.isdecimal()
