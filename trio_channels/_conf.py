"""The ``TRIO_CHANNELS`` setting: a dict whose keys all have defaults. Unknown keys are refused.

Without configured Django settings every value is its default.
"""

from __future__ import annotations

import dataclasses
import difflib
import os
from functools import lru_cache
from typing import Any, NamedTuple

from django.conf import settings
from django.core.signals import setting_changed

from ._asgi.masking import SECRETS
from ._limits import CAPACITY, COUNT, OVERFLOW, SECONDS, SECONDS_OR_ZERO, SWITCH, Limits, Rule, at_least
from .exceptions import ConfigurationError

NAME = "TRIO_CHANNELS"


class _Setting(NamedTuple):
    default: Any
    rule: Rule


_MODULE_NAMES = Rule(
    "a list or tuple of module names, such as ['corsheaders']",
    lambda value: isinstance(value, list | tuple) and all(isinstance(name, str) and name for name in value),
)

_WORDS = Rule(
    "a list or tuple of words in small letters, such as ['token', 'password']",
    lambda value: isinstance(value, list | tuple) and all(isinstance(word, str) and word.islower() for word in value),
)
_ALIAS = Rule("True, False, or 'shadow'", lambda value: isinstance(value, bool) or value == "shadow")
_SECONDS_OR_NONE = Rule(
    "None, or a number of seconds, 0 or more", lambda value: value is None or SECONDS_OR_ZERO.holds(value)
)


def _seconds(least: float) -> Rule:
    """Seconds that a database can add to a date, and a browser can wait."""
    return Rule(
        f"a number of seconds from {least:g} to {_LONGEST:g}",
        lambda value: SECONDS_OR_ZERO.holds(value) and least <= value <= _LONGEST,
    )


def _up_to(most: int) -> Rule:
    return Rule(f"an int from 1 to {most}", lambda value: COUNT.holds(value) and value <= most)


_LONGEST = 1e9
_LIMITS = Limits()

#: Every key; the reference page of the docs gives units and reasons.
SETTINGS: dict[str, _Setting] = {
    "WORKER_THREADS": _Setting(10, COUNT),
    "WORKER_QUEUE": _Setting(1_000, at_least(0)),
    "THREAD_PER_REQUEST": _Setting(True, SWITCH),
    "THREAD_NEUTRAL": _Setting((), _MODULE_NAMES),
    "MAILBOX_CAPACITY": _Setting(CAPACITY, COUNT),
    "MAILBOX_OVERFLOW": _Setting("close", OVERFLOW),
    "READ_AHEAD": _Setting(_LIMITS.read_ahead, COUNT),
    "OUTBOX": _Setting(_LIMITS.outbox, COUNT),
    "ACCEPT_TIMEOUT": _Setting(_LIMITS.accept_timeout, SECONDS),
    "DISCONNECT_TIMEOUT": _Setting(_LIMITS.disconnect_timeout, SECONDS),
    "CLOSE_TIMEOUT": _Setting(_LIMITS.close_timeout, SECONDS),
    "SEND_TIMEOUT": _Setting(_LIMITS.send_timeout, SECONDS),
    "MAX_BODY_SIZE": _Setting(10 * 2**20, COUNT),
    "MAX_UPLOAD_SIZE": _Setting(100 * 2**20, COUNT),
    "ASGIREF_BRIDGE": _Setting(True, SWITCH),
    "BODY_TIMEOUT": _Setting(60.0, SECONDS),
    "CHANNELS_ALIAS": _Setting(False, _ALIAS),
    "HARDEN_HYPERCORN": _Setting(True, SWITCH),
    "MAX_MESSAGE_SIZE": _Setting(2**20, COUNT),
    "MESSAGES_PER_SECOND": _Setting(0, at_least(0)),
    "WEBSOCKET_COMPRESSION": _Setting(False, SWITCH),
    "PING_INTERVAL": _Setting(20.0, SECONDS),
    "PONG_TIMEOUT": _Setting(20.0, SECONDS),
    "HANDSHAKE_TIMEOUT": _Setting(10.0, SECONDS),
    "HEADER_TIMEOUT": _Setting(10.0, SECONDS),
    "WRITE_TIMEOUT": _Setting(20.0, SECONDS),
    "MAX_CONNECTIONS": _Setting(20_000, COUNT),
    "MAX_CONNECTIONS_PER_ADDRESS": _Setting(0, at_least(0)),
    "SHUTDOWN_GRACE": _Setting(30.0, SECONDS),
    "TRANSACTION_TIMEOUT": _Setting(30.0, SECONDS),
    "SESSION_RECHECK": _Setting(0.0, SECONDS_OR_ZERO),
    "CLOSE_ON_LOGOUT": _Setting(False, SWITCH),
    "MASKED_PARAMETERS": _Setting(SECRETS, _WORDS),
    "BLOCKED_LOOP": _Setting(None, _SECONDS_OR_NONE),
    "TOPICS_PER_SOCKET": _Setting(1_000, COUNT),
    "TOPIC_PENDING_PUSHES": _Setting(64, COUNT),
    "TOPIC_PENDING_BYTES": _Setting(8 * 2**20, COUNT),
    "TOPIC_PUSHES_PER_SECOND": _Setting(0, at_least(0)),
    "LONG_POLL_WINDOW": _Setting(10.0, SECONDS),
    "LONG_POLL_TIMEOUT": _Setting(15.0, SECONDS),
    "LONG_POLL_BUFFER": _Setting(2**18, COUNT),
    "LONG_POLL_SESSIONS": _Setting(1_000, COUNT),
    "LONG_POLL_SESSIONS_PER_ADDRESS": _Setting(0, at_least(0)),
    "EVENT_STREAM_HEARTBEAT": _Setting(15.0, SECONDS),
    "EVENT_STREAM_RETRY": _Setting(2.0, _seconds(0.1)),  # less would be a flood
    "RELAY_POLL": _Setting(1.0, SECONDS),
    "RELAY_BATCH": _Setting(100, _up_to(900)),  # SQLite takes 999 parameters in a query
    "RELAY_LEASE": _Setting(30.0, _seconds(0.1)),
    "RELAY_ATTEMPTS": _Setting(5, _up_to(10_000)),  # the database counts up to 32,767
    "RELAY_RETENTION": _Setting(604_800.0, _seconds(0)),
    "INSPECTOR_TIMEOUT": _Setting(1.0, SECONDS),
    "INSPECTOR_CONNECTIONS": _Setting(200, _up_to(10_000)),  # an answer is one message
}


def get(name: str) -> Any:
    """The value of one key of ``TRIO_CHANNELS``, or its default.

    Raises:
        ConfigurationError: the setting has an unknown key or an invalid value.
    """
    return _values()[name] if available() else SETTINGS[name].default


def limits() -> Limits:
    """The limits of a connection, from the settings."""
    return _given_limits() if available() else _LIMITS


def available() -> bool:
    """Whether there are Django settings: configured, or in the module that DJANGO_SETTINGS_MODULE names."""
    return settings.configured or bool(os.environ.get("DJANGO_SETTINGS_MODULE"))


@lru_cache(maxsize=1)
def _given_limits() -> Limits:
    return Limits(**{field.name: get(field.name.upper()) for field in dataclasses.fields(Limits)})


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
        setting.rule.require(f"{NAME}[{name!r}]", value)
    return {name: given.get(name, setting.default) for name, setting in SETTINGS.items()}


def _forget(*, setting: str, **_kwargs: object) -> None:
    if setting == NAME:
        _values.cache_clear()
        _given_limits.cache_clear()


setting_changed.connect(_forget)
