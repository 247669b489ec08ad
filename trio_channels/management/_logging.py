"""Logging of commands that run until a signal."""

from __future__ import annotations

import logging

from ..log import enable_loggers
from ..server.error_log import stderr_handler


def log_to_stderr(verbosity: int) -> None:
    """Log to stderr the lines for which the project's LOGGING has no handler."""
    enable_loggers()
    if not logging.getLogger().handlers:
        level = {0: logging.WARNING, 1: logging.INFO}.get(verbosity, logging.DEBUG)
        form = "%(asctime)s %(levelname)s %(name)s: %(message)s"
        logging.basicConfig(level=level, format=form, handlers=[stderr_handler()])
