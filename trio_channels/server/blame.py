"""Whose doing an error in protocol code is."""

from __future__ import annotations

import h2.exceptions
import h11
from priority.priority import PriorityError
from wsproto.utilities import ProtocolError

from .._concurrency.exception_groups import leaves

#: What protocol code raises for what a client has sent; anything else is a mistake of ours or of a library.
_CLIENTS_DOING = (ValueError, h11.RemoteProtocolError, h2.exceptions.ProtocolError, PriorityError, ProtocolError)


def clients_doing(error: BaseException) -> BaseException | None:
    """The first of the errors, if all of them are the client's doing."""
    errors = list(leaves(error))
    return errors[0] if all(isinstance(one, _CLIENTS_DOING) for one in errors) else None
