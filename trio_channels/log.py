"""The connection's number in log records, and loggers that ``dictConfig`` has disabled.

The server numbers its connections, from 1 in each process. The number is in ``scope["extensions"]``, in the access log,
and in the log lines of trio-channels that name a connection. :class:`ConnectionFilter` adds it to every other record.
"""

from __future__ import annotations

import logging
from contextvars import ContextVar
from typing import Any

__all__ = ["ConnectionFilter"]

#: Set in the tasks of a connection, and in the calls that they make on threads.
current_connection: ContextVar[int | None] = ContextVar("trio_channels connection", default=None)


class ConnectionFilter(logging.Filter):
    """Gives each record the attribute ``connection``: the number of the connection that logged it, or ``-``.

    Put it into a handler's ``filters``; the handler's format can then use ``%(connection)s``.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Add the number; every record passes."""
        number = current_connection.get()
        record.connection = "-" if number is None else number
        return True


def number_of(scope: Any) -> int | None:
    """The number of a scope's connection; None if the server does not number connections."""
    extension = (scope.get("extensions") or {}).get("trio_channels.connection")
    return extension["id"] if extension else None


#: For each family of loggers that trio-channels writes to, one that no code configures or disables by name.
_MARKS = {
    "trio_channels": logging.getLogger("trio_channels.log"),
    "hypercorn": logging.getLogger("hypercorn.trio_channels"),
}


def enable_loggers() -> None:
    """Enable the loggers that ``dictConfig`` has disabled; called after each configuration of logging.

    Modules get their loggers at import. Django configures logging later, and then ``disable_existing_loggers``, whose
    default is True, disables every existing logger that LOGGING does not name. A logger that a program has disabled
    by itself stays disabled: then the mark of its family is not disabled.
    """
    for family, mark in _MARKS.items():
        if mark.disabled:
            for name, logger in list(logging.root.manager.loggerDict.items()):
                if isinstance(logger, logging.Logger) and f"{name}.".startswith(f"{family}."):
                    logger.disabled = False
