"""The ``TRIO_CHANNELS`` setting: one dict, every key with a default, unknown keys refused.

Works without configured Django settings: then every value is its default.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, get_args

from django.conf import settings
from django.core.signals import setting_changed

from ._limits import CAPACITY, Limits, Overflow
from .exceptions import ConfigurationError

NAME = "TRIO_CHANNELS"


@dataclass(frozen=True, slots=True)
class _Setting:
    default: Any
    expected: str
    valid: Callable[[Any], bool]


def _count(default: int, least: int = 1) -> _Setting:
    return _Setting(default, f"an int of at least {least}", lambda v: _is_int(v) and v >= least)


def _seconds(default: float) -> _Setting:
    return _Setting(default, "a number of seconds above 0", lambda v: _is_number(v) and v > 0)


def _switch(default: bool) -> _Setting:
    return _Setting(default, "True or False", lambda v: isinstance(v, bool))


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: object) -> bool:
    return _is_int(value) or isinstance(value, float)


_LIMITS = Limits()

#: Every key; the reference page of the docs gives units and reasons.
SETTINGS: dict[str, _Setting] = {
    "WORKER_THREADS": _count(10),
    "WORKER_QUEUE": _count(1_000, least=0),
    "THREAD_PER_REQUEST": _switch(True),
    "THREAD_NEUTRAL": _Setting(
        (),
        "a list or tuple of module names, such as ['corsheaders']",
        lambda v: isinstance(v, list | tuple) and all(isinstance(name, str) and name for name in v),
    ),
    "MAILBOX_CAPACITY": _count(CAPACITY),
    "MAILBOX_OVERFLOW": _Setting("close", f"one of {get_args(Overflow)}", lambda v: v in get_args(Overflow)),
    "READ_AHEAD": _count(_LIMITS.read_ahead),
    "OUTBOX": _count(_LIMITS.outbox),
    "ACCEPT_TIMEOUT": _seconds(_LIMITS.accept_timeout),
    "DISCONNECT_TIMEOUT": _seconds(_LIMITS.disconnect_timeout),
    "CLOSE_TIMEOUT": _seconds(_LIMITS.close_timeout),
    "SEND_TIMEOUT": _seconds(_LIMITS.send_timeout),
    "MAX_BODY_SIZE": _count(10 * 2**20),
    "MAX_UPLOAD_SIZE": _count(100 * 2**20),
    "ASGIREF_BRIDGE": _switch(True),
    "BODY_TIMEOUT": _seconds(60.0),
    "HARDEN_HYPERCORN": _switch(True),
    "MAX_MESSAGE_SIZE": _count(2**20),
    "MESSAGES_PER_SECOND": _count(0, least=0),
    "WEBSOCKET_COMPRESSION": _switch(False),
    "PING_INTERVAL": _seconds(20.0),
    "PONG_TIMEOUT": _seconds(20.0),
    "HANDSHAKE_TIMEOUT": _seconds(10.0),
    "HEADER_TIMEOUT": _seconds(10.0),
    "WRITE_TIMEOUT": _seconds(20.0),
    "MAX_CONNECTIONS": _count(20_000),
    "MAX_CONNECTIONS_PER_ADDRESS": _count(0, least=0),
    "SHUTDOWN_GRACE": _seconds(30.0),
    "TRANSACTION_TIMEOUT": _seconds(30.0),
    "SESSION_RECHECK": _Setting(0.0, "a number of seconds, or 0 for never", lambda v: _is_number(v) and v >= 0),
}


def get(name: str) -> Any:
    """The value of one key of ``TRIO_CHANNELS``, or its default.

    Raises:
        ConfigurationError: the setting holds an unknown key or an impossible value.
    """
    return _values()[name] if available() else SETTINGS[name].default


def limits() -> Limits:
    """The limits of a connection, from the settings."""
    return _given_limits() if available() else _LIMITS


def available() -> bool:
    """Whether there are Django settings: configured, or in a module that the environment names."""
    return settings.configured or bool(os.environ.get("DJANGO_SETTINGS_MODULE"))


@lru_cache(maxsize=1)
def _given_limits() -> Limits:
    return Limits(
        read_ahead=get("READ_AHEAD"),
        accept_timeout=get("ACCEPT_TIMEOUT"),
        disconnect_timeout=get("DISCONNECT_TIMEOUT"),
        close_timeout=get("CLOSE_TIMEOUT"),
        send_timeout=get("SEND_TIMEOUT"),
        outbox=get("OUTBOX"),
    )


@lru_cache(maxsize=1)
def _values() -> dict[str, Any]:
    given = getattr(settings, NAME, {})
    if not isinstance(given, dict):
        raise ConfigurationError(f"the setting {NAME} must be a dict; got {type(given).__name__}")
    for name, value in given.items():
        setting = SETTINGS.get(name)
        if setting is None:
            near = difflib.get_close_matches(str(name).upper(), SETTINGS, n=1, cutoff=0.0)[0]
            raise ConfigurationError(f"{NAME} has no key {name!r}; did you mean {near!r}? Known: {', '.join(SETTINGS)}")
        if not setting.valid(value):
            raise ConfigurationError(f"{NAME}[{name!r}] must be {setting.expected}; got {value!r}")
    return {name: given.get(name, setting.default) for name, setting in SETTINGS.items()}


def _forget(*, setting: str, **_kwargs: object) -> None:
    if setting == NAME:
        _values.cache_clear()
        _given_limits.cache_clear()


setting_changed.connect(_forget)
