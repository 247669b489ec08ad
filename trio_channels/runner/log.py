"""Where the runner's own lines go: where Django's LOGGING sends them, else where hypercorn's error log goes."""

from __future__ import annotations

import logging
import sys

from hypercorn.config import Config

#: As hypercorn's own, so that the lines of both stand in one column.
_FORMAT = logging.Formatter("%(asctime)s [%(process)d] [%(levelname)s] %(message)s", "[%Y-%m-%d %H:%M:%S %z]")


def open_log(config: Config) -> None:
    """Give ``trio_channels`` a handler if neither it nor the root logger has one. Idempotent.

    Args:
        config: its ``errorlog`` (``-`` for stderr, a path, a logger, or None for nowhere) and ``loglevel`` are obeyed.
    """
    logger = logging.getLogger("trio_channels")
    # A dictConfig without disable_existing_loggers=False switches off what was there before it.
    logging.getLogger("trio_channels.runner").disabled = logger.disabled = False
    if logger.hasHandlers() or not config.errorlog:
        return
    if isinstance(config.errorlog, logging.Logger):
        logger.handlers = list(config.errorlog.handlers)
    else:
        target = config.errorlog
        logger.handlers = [logging.StreamHandler(sys.stderr) if target == "-" else logging.FileHandler(target)]
        logger.handlers[0].setFormatter(_FORMAT)
    logger.setLevel(config.loglevel.upper())
