"""The connection's number in log records.

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
