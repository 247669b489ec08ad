"""The ``TRIO_CHANNELS`` setting: defaults, refusals, and following a change."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from trio_channels import _conf
from trio_channels._limits import Limits
from trio_channels.exceptions import ConfigurationError


def test_every_key_has_a_default_that_is_valid() -> None:
    for name, setting in _conf.SETTINGS.items():
        assert setting.rule.holds(setting.default), name
        assert _conf.get(name) == setting.default


def test_given_value_counts_and_others_keep_defaults(settings: Any) -> None:
    settings.TRIO_CHANNELS = {"WORKER_THREADS": 3}
    assert (_conf.get("WORKER_THREADS"), _conf.get("WORKER_QUEUE")) == (3, 1000)


def test_limits_follow_the_settings(settings: Any) -> None:
    assert _conf.limits() == Limits()
    settings.TRIO_CHANNELS = {"READ_AHEAD": 2, "ACCEPT_TIMEOUT": 1.5, "OUTBOX": 3}
    assert _conf.limits() == Limits(read_ahead=2, accept_timeout=1.5, outbox=3)
    settings.TRIO_CHANNELS = {}
    assert _conf.limits() == Limits()


def test_another_setting_does_not_make_the_limits_anew(settings: Any) -> None:
    before = _conf.limits()
    settings.USE_TZ = False
    assert _conf.limits() is before


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("WORKER_THREADS", 0, "an int of at least 1"),
        ("WORKER_THREADS", "10", "an int of at least 1"),
        ("WORKER_THREADS", 1.5, "an int of at least 1"),
        ("WORKER_THREADS", True, "an int of at least 1"),
        ("WORKER_QUEUE", -1, "an int of at least 0"),
        ("MAILBOX_CAPACITY", None, "an int of at least 1"),
        ("MAILBOX_OVERFLOW", "drop", "one of ('close', 'drop_newest', 'drop_oldest')"),
        ("MAILBOX_OVERFLOW", [], "one of"),
        ("ACCEPT_TIMEOUT", 0, "a number of seconds above 0"),
        ("ACCEPT_TIMEOUT", float("nan"), "a number of seconds above 0"),
        ("ACCEPT_TIMEOUT", "10", "a number of seconds above 0"),
        ("ACCEPT_TIMEOUT", True, "a number of seconds above 0"),
        ("CLOSE_ON_LOGOUT", 1, "True or False"),
        ("BLOCKED_LOOP", -1, "None, or a number of seconds, 0 or more"),
        ("MASKED_PARAMETERS", "token", "a list or tuple of words in small letters"),
        ("MASKED_PARAMETERS", ["Token"], "a list or tuple of words in small letters"),
        ("MASKED_PARAMETERS", [""], "a list or tuple of words in small letters"),
        ("RELAY_BATCH", 901, "an int from 1 to 900"),
        ("RELAY_BATCH", 0, "an int from 1 to 900"),
        ("RELAY_BATCH", True, "an int from 1 to 900"),
        ("RELAY_ATTEMPTS", 10_001, "an int from 1 to 10000"),
        ("RELAY_LEASE", 0, "a number of seconds from 0.1 to 1e+09"),
        ("RELAY_LEASE", float("inf"), "a number of seconds from 0.1 to 1e+09"),
        ("EVENT_STREAM_RETRY", float("inf"), "a number of seconds from 0.1 to 1e+09"),
        ("EVENT_STREAM_RETRY", 0.0001, "a number of seconds from 0.1 to 1e+09"),
        ("RELAY_RETENTION", -1, "a number of seconds from 0 to 1e+09"),
        ("RELAY_RETENTION", float("nan"), "a number of seconds from 0 to 1e+09"),
    ],
)
def test_impossible_value_is_refused_with_what_was_expected(
    settings: Any, name: str, value: Any, expected: str
) -> None:
    settings.TRIO_CHANNELS = {name: value}
    with pytest.raises(ConfigurationError) as caught:
        _conf.get("WORKER_THREADS")
    assert f"TRIO_CHANNELS[{name!r}] must be {expected}" in str(caught.value)
    assert repr(value) in str(caught.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("WORKER_QUEUE", 0),
        ("ACCEPT_TIMEOUT", 1),
        ("ACCEPT_TIMEOUT", 0.5),
        ("BLOCKED_LOOP", 0),
        ("MASKED_PARAMETERS", []),
        ("RELAY_RETENTION", 0),
        ("RELAY_BATCH", 900),
    ],
)
def test_value_at_the_edge_is_taken(settings: Any, name: str, value: Any) -> None:
    settings.TRIO_CHANNELS = {name: value}
    assert _conf.get(name) == value


@pytest.mark.parametrize(
    ("name", "near"), [("WORKER_THREAD", "WORKER_THREADS"), ("accept_timeout", "ACCEPT_TIMEOUT"), ("", ""), (5, "")]
)
def test_unknown_key_is_refused_and_a_known_one_named(settings: Any, name: Any, near: str) -> None:
    settings.TRIO_CHANNELS = {name: 1}
    with pytest.raises(ConfigurationError, match=f"no key {name!r}; did you mean '{near}"):
        _conf.get("WORKER_THREADS")


@pytest.mark.parametrize("value", [None, [], "WORKER_THREADS"], ids=repr)
def test_setting_that_is_no_dict_is_refused(settings: Any, value: Any) -> None:
    settings.TRIO_CHANNELS = value
    with pytest.raises(ConfigurationError, match=f"must be a dict; got {type(value).__name__}"):
        _conf.limits()


def test_error_is_not_kept_after_the_setting_was_put_right(settings: Any) -> None:
    settings.TRIO_CHANNELS = {"nonsense": 1}
    with pytest.raises(ConfigurationError):
        _conf.get("WORKER_THREADS")
    settings.TRIO_CHANNELS = {"WORKER_THREADS": 2}
    assert _conf.get("WORKER_THREADS") == 2


def test_asking_for_a_key_that_does_not_exist_is_a_key_error() -> None:
    with pytest.raises(KeyError):
        _conf.get("NONSENSE")


def test_without_settings_the_defaults_hold_until_there_are_some(monkeypatch: pytest.MonkeyPatch) -> None:
    program = """
from django.conf import settings
from trio_channels import _conf
from trio_channels._limits import Limits
from trio_channels.layers import get_channel_layer

assert not _conf.available()
assert (_conf.get("OUTBOX"), _conf.limits(), get_channel_layer()) == (64, Limits(), None)
settings.configure(TRIO_CHANNELS={"OUTBOX": 5})
assert (_conf.get("OUTBOX"), _conf.limits()) == (5, Limits(outbox=5))
"""
    monkeypatch.delenv("DJANGO_SETTINGS_MODULE")
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
