"""The server's log: each line of ``trio_channels`` and ``hypercorn.error`` is written once, whatever LOGGING says.

The rules:

1. LOGGING comes first. A logger that reaches a handler of LOGGING, its own or the root logger's, gets no other one.
   (hypercorn adds its own always, so that lines appear twice.)
2. A logger that reaches no handler writes to stderr. So if LOGGING has a handler for a part of ours only, that part's
   lines go there, and all others to stderr.
3. A file that `errorlog` names gets the lines too.
4. The lines of the server itself, such as its start and its end, have the level of hypercorn's `loglevel`, unless
   LOGGING gives their logger, or one above it, a level.
"""

from __future__ import annotations

import logging
import sys

import trio
from hypercorn.config import Config

from ..log import enable_loggers

#: Hypercorn's format.
_FORMAT = logging.Formatter("%(asctime)s [%(process)d] [%(levelname)s] %(message)s", "[%Y-%m-%d %H:%M:%S %z]")
#: The name of the handlers that are added here.
_NAME = "trio_channels error log"

#: Levels that were set here, by the logger's name. LOGGING has not set them.
_levels: dict[str, int] = {}


def open_error_log(config: Config) -> None:
    """Apply the rules of the module, and hypercorn's `logconfig`, if there is one. Idempotent."""
    target = config.errorlog
    hypercorns = logging.getLogger("hypercorn.error")
    if isinstance(target, str) and target:
        config.errorlog = hypercorns  # hypercorn adds no handler to a logger that it is given
    if config.statsd_host is None or trio.lowlevel.in_trio_run():  # a log that sends statistics needs a Trio run
        _ = config.log  # this makes hypercorn apply `logconfig`
    enable_loggers()
    if target is hypercorns:
        return  # it is open, or the caller has opened it
    ours = logging.getLogger("trio_channels")
    if isinstance(target, logging.Logger):
        if not ours.hasHandlers():
            ours.handlers = list(target.handlers)
            _set_level(ours, config.loglevel)
    elif target:
        add_handlers(None if target == "-" else target, config.loglevel)


def add_handlers(file: str | None, level: str, hypercorns_level: str | None = None) -> None:
    """Have lines written that would be lost: to a file, or to stderr where LOGGING has no handler for them."""
    ours, hypercorns = logging.getLogger("trio_channels"), logging.getLogger("hypercorn.error")
    for logger in (ours, hypercorns):
        for old in [handler for handler in logger.handlers if handler.name == _NAME]:
            logger.removeHandler(old)
            old.close()
    handler = stderr_handler() if file is None else logging.FileHandler(file)
    handler.set_name(_NAME)
    handler.setFormatter(_FORMAT)
    lost = [logger for logger in (ours, hypercorns) if file is not None or not logger.hasHandlers()]
    for logger in lost:
        logger.addHandler(handler)
    if ours in lost:
        _set_level(ours, level)
    _set_level(logging.getLogger("trio_channels.runner"), level)
    _set_level(hypercorns, hypercorns_level or level)


def stderr_handler() -> logging.Handler:
    """A handler that writes to stderr the records that no handler nearer to their logger has written."""
    handler = logging.StreamHandler(sys.stderr)
    handler.set_name(_NAME)
    handler.addFilter(_is_lost)
    return handler


def _is_lost(record: logging.LogRecord) -> bool:
    logger: logging.Logger | None = logging.getLogger(record.name)
    while logger is not None and not any(handler.name == _NAME for handler in logger.handlers):
        if any(not isinstance(handler, logging.NullHandler) for handler in logger.handlers):
            return False
        logger = logger.parent
    return True


def _set_level(logger: logging.Logger, level: str) -> None:
    """Set a logger's level, unless LOGGING has set it, or that of a logger between it and the root logger."""
    above: logging.Logger | None = logger
    while above is not None and above.parent is not None:
        if above.level not in (logging.NOTSET, _levels.get(above.name)):
            return
        above = above.parent
    logger.setLevel(level.upper())
    _levels[logger.name] = logger.level
