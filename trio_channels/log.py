"""Which connection a log record is about: a number for each, the same in all that is logged on its behalf.

The server numbers its connections, from 1 in each process. The number is in ``scope["extensions"]``, in the lines of
trio-channels that name a connection, and in the access log; :class:`ConnectionFilter` puts it into every other record.
"""

from __future__ import annotations

import logging
from contextvars import ContextVar
from typing import Any

__all__ = ["ConnectionFilter"]

#: Set in the tasks of a connection, and so in the worker threads that they use.
current_connection: ContextVar[int | None] = ContextVar("trio_channels connection", default=None)


class ConnectionFilter(logging.Filter):
    """Gives each record an attribute ``connection``: the number of the connection that it was made for, or ``-``.

    For a handler's ``filters``; a format may then say ``%(connection)s``.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Add the number; every record passes."""
        number = current_connection.get()
        record.connection = "-" if number is None else number
        return True


def number_of(scope: Any) -> int | None:
    """The number that the server has given to a scope's connection; None of a server that does not."""
    extension = (scope.get("extensions") or {}).get("trio_channels.connection")
    return extension["id"] if extension else None
