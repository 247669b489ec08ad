"""The runner's log handler: used where neither Django's LOGGING nor the root logger has one."""

from __future__ import annotations

import logging
import sys

from hypercorn.config import Config

#: The format of hypercorn's own lines, so that the columns of both align.
_FORMAT = logging.Formatter("%(asctime)s [%(process)d] [%(levelname)s] %(message)s", "[%Y-%m-%d %H:%M:%S %z]")


def open_log(config: Config) -> None:
    """Give the logger ``trio_channels`` a handler if neither it nor the root logger has one. Idempotent."""
    logger = logging.getLogger("trio_channels")
    # A dictConfig without disable_existing_loggers=False has disabled these loggers.
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
