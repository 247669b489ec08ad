"""Whose doing an error in protocol code is."""

from __future__ import annotations

import h2.exceptions
import h11
from priority.priority import PriorityError
from wsproto.utilities import ProtocolError

#: What protocol code raises for what a client has sent; anything else is a mistake of ours or of a library.
_CLIENTS_DOING = (ValueError, h11.RemoteProtocolError, h2.exceptions.ProtocolError, PriorityError, ProtocolError)


def clients_doing(error: BaseException) -> BaseException | None:
    """The first of the errors, if all of them are the client's doing."""
    errors = _leaves(error)
    return errors[0] if all(isinstance(one, _CLIENTS_DOING) for one in errors) else None


def _leaves(error: BaseException) -> list[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        return [leaf for inner in error.exceptions for leaf in _leaves(inner)]
    return [error]
