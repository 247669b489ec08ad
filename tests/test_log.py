"""Records that know their connection."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from trio_channels._asgi.protocol import describe
from trio_channels.log import ConnectionFilter, current_connection, enable_loggers, number_of

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


@contextmanager
def configured() -> Iterator[None]:
    """In the block, a ``dictConfig`` that names no logger of ours has run."""
    loggers = [logger for logger in logging.root.manager.loggerDict.values() if isinstance(logger, logging.Logger)]
    before = [logger.disabled for logger in loggers]
    try:
        for logger in loggers:  # as logging.config does, without a change to the handlers of this test run
            logger.disabled = True
        yield
    finally:
        for logger, disabled in zip(loggers, before, strict=True):
            logger.disabled = disabled


OURS = [logging.getLogger(name) for name in ("trio_channels", "trio_channels.routing", "hypercorn.error")]


def test_loggers_that_a_configuration_disabled_are_enabled() -> None:
    foreign = logging.getLogger("trio_channels_of_others")
    with configured():
        enable_loggers()
        assert not any(logger.disabled for logger in OURS)
        assert foreign.disabled


def test_logger_that_is_disabled_on_purpose_stays_disabled() -> None:
    with configured():
        enable_loggers()
        OURS[1].disabled = True
        enable_loggers()
        assert [logger.disabled for logger in OURS] == [False, True, False]
