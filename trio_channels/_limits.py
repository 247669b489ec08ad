"""The limits of one connection, and rules for the values that settings and arguments may have."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, get_args

from .exceptions import ConfigurationError

#: The reaction to a full mailbox; see :meth:`ChannelLayer.subscribe`.
Overflow = Literal["close", "drop_newest", "drop_oldest"]

#: Messages that a mailbox holds.
CAPACITY = 100


class Rule(NamedTuple):
    """A condition on a value, and its description for error messages: "must be ..."."""

    expected: str
    holds: Callable[[Any], bool]

    def require(self, name: str, value: object, error: type[Exception] = ConfigurationError) -> None:
        """Raise `error` unless the value is valid; `name` is the beginning of its message."""
        if not self.holds(value):
            raise error(f"{name} must be {self.expected}; got {value!r}")


#: The alias of the channel layer that consumers use unless their class names another one.
DEFAULT_CHANNEL_LAYER = "default"


def suggestion(name: object, known: Collection[str]) -> str:
    """The end of an error about an unknown key: "; did you mean ...?" if one is near, and the known ones."""
    near = difflib.get_close_matches(str(name).lower(), {key.lower(): key for key in known}, n=1)
    meant = f"; did you mean {next(key for key in known if key.lower() == near[0])!r}?" if near else "."
    return f"{meant} Known: {', '.join(known)}"


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: object) -> bool:
    return _is_int(value) or isinstance(value, float)


def at_least(least: int) -> Rule:
    """An int, not below `least`."""
    return Rule(f"an int of at least {least}", lambda value: _is_int(value) and value >= least)


def one_of(choices: tuple[object, ...]) -> Rule:
    """One of the values that a setting or an argument can have."""
    return Rule(f"one of {choices}", lambda value: value in choices)


COUNT = at_least(1)
SECONDS = Rule("a number of seconds above 0", lambda value: _is_number(value) and value > 0)
SECONDS_OR_ZERO = Rule("a number of seconds, 0 or more", lambda value: _is_number(value) and value >= 0)
SWITCH = Rule("True or False", lambda value: isinstance(value, bool))
OVERFLOW = one_of(get_args(Overflow))


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of one connection.

    Args:
        read_ahead: client events that are read before a handler takes them. Enough to see closes and disconnects while
            a handler runs; few enough for TCP to slow a client that floods.
        accept_timeout: seconds in which the application must accept or deny a WebSocket.
        disconnect_timeout: seconds that a running handler may go on after its client has left, and seconds that the
            ``disconnect`` handler may take.
        close_timeout: seconds to wait for the server's disconnect after this side has closed.
        send_timeout: seconds that a synchronous handler may wait for a slow client; then the connection is cut.
        outbox: messages of a synchronous consumer that may wait to be sent.
    """

    read_ahead: int = 16
    accept_timeout: float = 10.0
    disconnect_timeout: float = 10.0
    close_timeout: float = 10.0
    send_timeout: float = 20.0
    outbox: int = 64
