"""Records that know their connection."""

from __future__ import annotations

import logging

from trio_channels._asgi.protocol import describe
from trio_channels.log import ConnectionFilter, current_connection, number_of

NUMBERED = {"type": "http", "path": "/", "extensions": {"trio_channels.connection": {"id": 7}}}


def record() -> logging.LogRecord:
    return logging.LogRecord("name", logging.INFO, "path", 1, "message", (), None)


def test_record_that_is_made_for_a_connection_has_its_number() -> None:
    before = current_connection.set(7)
    try:
        made = record()
        assert ConnectionFilter().filter(made)
    finally:
        current_connection.reset(before)
    assert logging.Formatter("%(message)s #%(connection)s").format(made) == "message #7"


def test_record_of_no_connection_has_a_dash() -> None:
    made = record()
    assert ConnectionFilter().filter(made)
    assert made.connection == "-"  # type: ignore[attr-defined]


def test_scope_is_described_with_the_number_that_its_server_gave() -> None:
    assert describe(NUMBERED) == "http / #7"
    assert describe({"type": "http", "path": "/"}) == "http /"


def test_server_without_numbers_gives_none() -> None:
    assert number_of(NUMBERED) == 7
    assert number_of({"extensions": None}) is None
    assert number_of({}) is None
