"""The handlers and levels of the server's log."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import trio
from hypercorn.config import Config
from hypercorn.trio.statsd import StatsdLogger

from trio_channels.server import error_log
from trio_channels.server.access_log import use_our_log

NAMES = ("trio_channels", "trio_channels.runner", "hypercorn", "hypercorn.error")


@pytest.fixture(autouse=True)
def unconfigured(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The loggers as in a process of its own: nobody has configured anything."""
    monkeypatch.setattr(error_log, "_levels", {})
    loggers = [logging.getLogger(name) for name in NAMES]
    levels = [logger.level for logger in loggers]
    enabled = [each for each in logging.root.manager.loggerDict.values() if not getattr(each, "disabled", True)]
    for logger in (logging.getLogger(), *loggers):
        monkeypatch.setattr(logger, "handlers", [])
    for logger in loggers:
        logger.setLevel(logging.NOTSET)
    yield
    for logger, level in zip(loggers, levels, strict=True):
        for handler in logger.handlers:
            handler.close()
        logger.setLevel(level)
    for each in enabled:  # a dictConfig disables those of everybody
        each.disabled = False  # type: ignore[union-attr]


def config(**options: Any) -> Config:
    made = Config()
    for name, value in options.items():
        setattr(made, name, value)
    return made


def say() -> None:
    logging.getLogger("trio_channels.runner").info("ours")
    logging.getLogger("hypercorn.error").info("hypercorn's")


def handlers(name: str) -> list[str]:
    return [type(handler).__name__ for handler in logging.getLogger(name).handlers]


class Lines(logging.Handler):
    """Keeps the lines."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


@contextmanager
def handler_of(name: str) -> Iterator[Lines]:
    """A handler as LOGGING gives a logger one."""
    logger, handler = logging.getLogger(name), Lines()
    logger.addHandler(handler)
    yield handler
    logger.removeHandler(handler)


def test_without_handlers_lines_go_to_stderr(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    use_our_log(config())
    use_our_log(config())
    assert handlers("trio_channels") == handlers("hypercorn.error") == ["StreamHandler"]


def test_file_gets_each_line_once(tmp_path: Path) -> None:
    to_file = config(errorlog=str(tmp_path / "log"))
    use_our_log(to_file)
    use_our_log(to_file)
    use_our_log(config(errorlog=str(tmp_path / "log")))
    say()
    text = (tmp_path / "log").read_text()
    assert text.count("[INFO] ours\n") == text.count("[INFO] hypercorn's\n") == 1


def test_file_gets_the_lines_beside_logging(tmp_path: Path) -> None:
    with handler_of("") as root:
        use_our_log(config(errorlog=str(tmp_path / "log")))
        say()
    assert root.lines == ["ours", "hypercorn's"]
    assert (tmp_path / "log").read_text().count("\n") == 2


def test_handlers_of_logging_are_enough() -> None:
    with handler_of("") as root, handler_of("hypercorn.error") as own:
        logging.getLogger("hypercorn.error").propagate = False
        use_our_log(config())
        say()
        logging.getLogger("hypercorn.error").propagate = True
    assert root.lines == ["ours"]
    assert own.lines == ["hypercorn's"]
    assert handlers("trio_channels") == handlers("hypercorn.error") == []


@pytest.mark.parametrize("name", ["trio_channels.routing", "trio_channels.layers"])
def test_handler_of_one_part_is_enough_for_it(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with handler_of(name) as part, patch.object(logging.getLogger(), "handlers", []):
        use_our_log(config())
        logging.getLogger("trio_channels.routing").warning("of the routing")
        logging.getLogger("trio_channels.layers.redis").warning("of Redis")
    said = part.lines + capsys.readouterr().err.splitlines()
    assert len(part.lines) == 1
    assert sorted(line.partition("] of ")[2] or line.removeprefix("of ") for line in said) == ["Redis", "the routing"]


def test_handler_that_does_nothing_is_not_enough(capsys: pytest.CaptureFixture[str]) -> None:
    logger = logging.getLogger("trio_channels.routing")
    with patch.object(logger, "handlers", [logging.NullHandler()]), patch.object(logging.getLogger(), "handlers", []):
        use_our_log(config())
        logger.warning("of the routing")
    assert capsys.readouterr().err.count("of the routing") == 1


def test_logger_as_error_log_gets_ours_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    mine = logging.Logger("mine")  # noqa: LOG001 - one that is in nobody's way
    mine.addHandler(lines := Lines())
    use_our_log(config(errorlog=mine))
    logging.getLogger("trio_channels.runner").info("ours")
    assert lines.lines == ["ours"]


def test_logger_as_error_log_does_not_double_a_line() -> None:
    mine = logging.Logger("mine")  # noqa: LOG001 - one that is in nobody's way
    mine.addHandler(lines := Lines())
    with handler_of("") as root:
        logging.getLogger("trio_channels").setLevel("INFO")
        use_our_log(config(errorlog=mine))
        logging.getLogger("trio_channels.runner").info("ours")
    assert (root.lines, lines.lines) == (["ours"], [])


def test_no_error_log_adds_no_handler() -> None:
    use_our_log(config(errorlog=None))
    assert handlers("trio_channels") == handlers("hypercorn.error") == []


def test_level_of_logging_stays() -> None:
    logging.getLogger("trio_channels").setLevel("ERROR")
    logging.getLogger("hypercorn").setLevel("DEBUG")
    use_our_log(config())
    assert logging.getLogger("trio_channels.runner").getEffectiveLevel() == logging.ERROR
    assert logging.getLogger("hypercorn.error").getEffectiveLevel() == logging.DEBUG


def test_later_server_has_its_own_level() -> None:
    use_our_log(config(loglevel="info"))
    use_our_log(config(loglevel="warning"))
    assert {logging.getLogger(name).getEffectiveLevel() for name in ("trio_channels", "hypercorn.error")} == {30}


def test_logconfig_that_disables_loggers_keeps_ours() -> None:
    use_our_log(config(logconfig_dict={"version": 1, "root": {"level": "INFO"}}))
    say()
    assert not any(logging.getLogger(name).disabled for name in NAMES)
    assert handlers("hypercorn.error") == ["StreamHandler"]


async def test_statsd_does_not_double_a_line() -> None:
    with_statsd = config(statsd_host="127.0.0.1:1")
    with handler_of("") as root:
        await trio.to_thread.run_sync(use_our_log, with_statsd)  # as the runner does, before it serves
        with_statsd.set_statsd_logger_class(StatsdLogger)
        use_our_log(with_statsd)
        say()
    assert isinstance(with_statsd.log, StatsdLogger)
    assert root.lines == ["ours", "hypercorn's"]
    with_statsd.log.socket.close()  # type: ignore[attr-defined]
