"""The legal messages of ASGI: their types, and the state of one connection, without I/O.

Sources: ASGI specification 3.0, HTTP and WebSocket message format 2.5, and the WebSocket Denial Response extension.

The tables below hold the rules: for each state the legal types, and the state that each leads to. Scope types without a
table (``lifespan``, ``channel``, an application's own) allow every message. Optional fields may be missing;
``subprotocol``, ``reason``, ``text`` and ``bytes`` may be None, but servers fail on a None elsewhere.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any
from typing import Protocol as StructuralType

from ..exceptions import IllegalMessage, ServerProtocolError
from ..log import number_of
from . import close_codes
from .foreign_calls import explain

Scope = MutableMapping[str, Any]
Message = dict[str, Any]
Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]
ASGIApplication = Callable[[Scope, Receive, Send], Awaitable[None]]


class Application(StructuralType):
    """An application that Django's ``path()`` and ``re_path()`` take: their type expects the response of a view."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send, /) -> Any:
        """Run one connection. Cancellation: the application's."""


#: Digits of a ``Content-Length``, so many that more make no difference. Python converts a few thousand at most.
_MOST_DIGITS = 20


class State(enum.Enum):
    """The state of a connection."""

    ANY = "any"
    CONNECTING = "connecting"  # a WebSocket, as the next two
    OPEN = "open"
    DENYING = "denying"
    REQUEST = "request"  # HTTP, as the next one
    RESPONDING = "responding"
    CLOSED = "closed"

    # Enum's own is a Python function, and the states are the keys of the tables.
    __hash__ = object.__hash__


_SENDABLE: dict[State, dict[str, State]] = {
    State.CONNECTING: {
        "websocket.accept": State.OPEN,
        "websocket.close": State.CLOSED,
        "websocket.http.response.start": State.DENYING,
    },
    State.OPEN: {"websocket.send": State.OPEN, "websocket.close": State.CLOSED},
    State.DENYING: {"websocket.http.response.body": State.CLOSED},
    State.REQUEST: {"http.response.start": State.RESPONDING},
    State.RESPONDING: {"http.response.body": State.CLOSED},
    State.CLOSED: {},
}

#: A response body with ``more_body`` does not change the state.
_CONTINUABLE = frozenset({"http.response.body", "websocket.http.response.body"})

#: Extension messages, legal in the states given when the scope's ``extensions`` name them; they change no state.
_EXTENSIONS: dict[str, tuple[str, frozenset[State]]] = {
    "http.response.push": ("http.response.push", frozenset({State.REQUEST, State.RESPONDING})),
    "http.response.early_hint": ("http.response.early_hint", frozenset({State.REQUEST})),
    "http.response.debug": ("http.response.debug", frozenset({State.REQUEST})),
    "http.response.trailers": ("http.response.trailers", frozenset({State.RESPONDING, State.CLOSED})),
}

_RECEIVABLE: dict[str, frozenset[str]] = {
    "websocket": frozenset({"websocket.connect", "websocket.receive", "websocket.disconnect"}),
    "http": frozenset({"http.request", "http.disconnect"}),
}

#: Every event that a server may deliver.
CLIENT_EVENTS = frozenset().union(*_RECEIVABLE.values())

_FIRST_STATE = {"websocket": State.CONNECTING, "http": State.REQUEST}

#: The scope extension of our server that has the queue behind ``receive``; see :class:`~.._concurrency.queues.Inbox`.
DIRECT = "trio_channels.direct"

#: The one event of a request without a body, before its disconnect.
NO_BODY: Message = {"type": "http.request", "body": b"", "more_body": False}

DISCONNECTS = frozenset({"websocket.disconnect", "http.disconnect"})

# A status below 200 is an interim response, which no server takes for the answer.
_MIN_STATUS, _MAX_STATUS = 200, 599

#: The types of a message. isinstance() recognises a dict in a quarter of the time that the abstract class takes.
_MAPPINGS = (dict, Mapping)

#: A header's name: a token of RFC 9110, 5.6.2.
_TOKEN = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")

# Checks of fields: each returns the fault, or None.


def fault_of_headers(value: object) -> str | None:
    """What is wrong with the headers of a response; None if nothing is."""
    if not isinstance(value, list | tuple):
        return f"headers must be a list of (bytes, bytes) pairs; got {value!r}"
    for pair in value:
        if (
            not isinstance(pair, list | tuple)
            or len(pair) != 2
            or not isinstance(pair[0], bytes)
            or not isinstance(pair[1], bytes)
        ):
            return f"a header must be a (bytes, bytes) pair; got {pair!r}"
        if _TOKEN.fullmatch(pair[0]) is None:
            return f"a header's name must be a token (RFC 9110, 5.6.2); got {pair!r}"
        if any(mark in pair[1] for mark in (b"\r", b"\n", b"\0")):
            return f"a header must not hold CR, LF or NUL; got {pair!r}"
    return None


def _utf8(text: str) -> bytes | None:
    try:
        return text.encode()
    except UnicodeEncodeError:
        return None  # a lone surrogate


def _accept(message: Message) -> str | None:
    subprotocol = message.get("subprotocol")
    if subprotocol is not None and not isinstance(subprotocol, str):
        return f"subprotocol must be a str or None; got {subprotocol!r}"
    return fault_of_headers(message.get("headers", ()))


def _websocket_send(message: Message) -> str | None:
    text, data = message.get("text"), message.get("bytes")
    if (text is None) == (data is None):
        return "exactly one of 'text' and 'bytes' must be given"
    if text is not None:
        if not isinstance(text, str):
            return f"text must be a str; got {type(text).__name__}"
        if not text.isascii() and _utf8(text) is None:
            return "text must be encodable as UTF-8; got a str with a lone surrogate"
        return None
    return None if isinstance(data, bytes) else f"bytes must be bytes; got {type(data).__name__}"


def is_data(message: object) -> bool:
    """Whether this is a well-formed ``websocket.send``, the one message that changes no state."""
    if not isinstance(message, dict) or message.get("type") != "websocket.send":
        return False
    text = message.get("text")
    # Nearly all messages are plain text, which is recognised without another call.
    return (text.__class__ is str and text.isascii() and len(message) == 2) or _websocket_send(message) is None


def _close(message: Message) -> str | None:
    code, reason = message.get("code", close_codes.NORMAL), message.get("reason")
    if not close_codes.may_be_sent(code):
        return f"code must be a WebSocket close code that may be sent (1000-4999 without 1004-1006, 1015); got {code!r}"
    if reason is not None and not isinstance(reason, str):
        return f"reason must be a str or None; got {reason!r}"
    encoded = _utf8(reason or "")
    if encoded is None or len(encoded) > 123:  # a control frame holds 125 bytes, two of them the code
        return f"reason must be at most 123 bytes of UTF-8; got {reason!r}"
    return None


def _response_start(message: Message) -> str | None:
    status = message.get("status")
    if not isinstance(status, int) or isinstance(status, bool) or not _MIN_STATUS <= status <= _MAX_STATUS:
        return f"status must be an int from {_MIN_STATUS} to {_MAX_STATUS}; got {status!r}"
    return fault_of_headers(message.get("headers", ()))


def _response_body(message: Message) -> str | None:
    body = message.get("body", b"")
    return None if isinstance(body, bytes) else f"body must be bytes; got {type(body).__name__}"


_FIELDS: dict[str, Callable[[Message], str | None]] = {
    "websocket.accept": _accept,
    "websocket.send": _websocket_send,
    "websocket.close": _close,
    "websocket.http.response.start": _response_start,
    "websocket.http.response.body": _response_body,
    "http.response.start": _response_start,
    "http.response.body": _response_body,
}


def _kind_of(message: object) -> str | None:
    """The type of a message; None if it has none that is a str."""
    kind = message.get("type") if isinstance(message, _MAPPINGS) else None
    return kind if isinstance(kind, str) else None


class Protocol:
    """The state of one connection's messages, both ways; :attr:`State.ANY` for scope types without a table."""

    __slots__ = ("_extensions", "_offered", "_receivable", "disconnected", "kind", "state")

    def __init__(self, scope: Scope) -> None:
        self.kind: str = scope["type"]
        self.state = _FIRST_STATE.get(self.kind, State.ANY)
        self.disconnected = False
        self._extensions: Mapping[str, Any] = scope.get("extensions") or {}
        self._offered: list[str] | None = scope.get("subprotocols")
        self._receivable = _RECEIVABLE.get(self.kind)

    def __repr__(self) -> str:
        return f"<Protocol {self.kind} {self.state.value}{' disconnected' if self.disconnected else ''}>"

    def sending(self, message: Message) -> None:
        """Check a message before it is sent, and advance the state; an illegal one raises and changes nothing."""
        kind = _kind_of(message)
        if kind is None:
            raise IllegalMessage(f"a message must be a dict with a 'type' that is a str; got {message!r}")
        if self.state is State.ANY:
            return
        after = _SENDABLE[self.state].get(kind)
        if after is None:
            self._check_extension(kind)
            return
        if kind == "websocket.http.response.start" and "websocket.http.response" not in self._extensions:
            raise IllegalMessage(
                "this server cannot send an HTTP response to a WebSocket handshake "
                "(no 'websocket.http.response' extension); send 'websocket.close', which it answers with 403"
            )
        fault = _FIELDS[kind](message)
        if fault is None and kind == "websocket.accept":
            fault = self._unoffered(message)
        if fault is not None:
            raise IllegalMessage(f"{kind!r} is malformed: {fault}")
        if not (kind in _CONTINUABLE and message.get("more_body")):
            self.state = after

    def _unoffered(self, message: Message) -> str | None:
        chosen = message.get("subprotocol")
        if chosen is None or self._offered is None or chosen in self._offered:
            return None
        return f"subprotocol must be one the client offered, {self._offered!r}, or None; got {chosen!r}"

    def _check_extension(self, kind: str) -> None:
        extension, states = _EXTENSIONS.get(kind, ("", frozenset()))
        if extension in self._extensions and self.state in states:
            return
        legal = ", ".join(repr(name) for name in _SENDABLE[self.state]) or "nothing"
        raise IllegalMessage(f"{kind!r} cannot be sent while the {self.kind} is {self.state.value}; expected {legal}")

    def received(self, event: Message) -> None:
        """Check an event of the server; raises ServerProtocolError if it breaks the ASGI specification."""
        kind = _kind_of(event)
        if kind is None:
            raise ServerProtocolError(f"the server delivered an event without a type: {event!r}")
        if self._receivable is not None and kind not in self._receivable:
            raise ServerProtocolError(
                f"the server delivered {kind!r} to a {self.kind} scope; expected one of {sorted(self._receivable)}"
            )
        if kind in DISCONNECTS:
            self.disconnected = True


def spec_version(scope: Scope) -> tuple[int, ...]:
    """The version of the HTTP and WebSocket specification that the server follows; (2, 0) by default."""
    numbers = str((scope.get("asgi") or {}).get("spec_version", "2.0")).split(".")
    return tuple(int(number) for number in numbers if number.isdecimal())


def announced_length(scope: Scope) -> int:
    """The request's ``Content-Length``; 0 if there is none, or it is no number."""
    value = next((value for name, value in scope.get("headers", ()) if name == b"content-length"), b"")
    return int(value[:_MOST_DIGITS]) if value.isdigit() else 0


def address(scope: Scope) -> str:
    """The client's address for log lines: ``host:port``, or ``?`` if the server does not know it."""
    client = scope.get("client")
    return f"{client[0]}:{client[1]}" if client else "?"


def describe(scope: Scope) -> str:
    """The connection for log lines, with the server's number: ``websocket /chat/ from 127.0.0.1:50412 #38``."""
    place = scope.get("path") or scope.get("channel") or ""
    shown = f"{scope['type']} {place} from {address(scope)}" if scope.get("client") else f"{scope['type']} {place}"
    if (number := number_of(scope)) is not None:
        shown += f" #{number}"
    # The path is the client's, percent-decoded: a line break in it would forge log lines.
    return shown if shown.isprintable() else shown.encode("unicode_escape").decode("ascii")


#: Keys of a scope that the server does not set -> the remedy if they are missing.
_PUT_INTO_SCOPE = {
    **dict.fromkeys(
        ("user", "session", "cookies"),
        "put AuthMiddlewareStack (trio_channels.auth) around the URLRouter; in a test of a consumer alone, set it in "
        "communicator.scope",
    ),
    "url_route": "route to the consumer with a URLRouter; in a test of a consumer alone, set it in communicator.scope",
}


def note_connection(error: BaseException, scope: Scope) -> None:
    """Add notes to an exception, for the server's log: one that names the connection, and a remedy if one is known."""
    explain(error)
    known = f"on {scope['type']} "  # the rest of a note may differ: behind a proxy the client's address does
    if not any(note.startswith(known) for note in getattr(error, "__notes__", ())):
        key = error.args[0] if isinstance(error, KeyError) and len(error.args) == 1 else None
        if isinstance(key, str) and key in _PUT_INTO_SCOPE and key not in scope:  # the application's, if it is inside
            error.add_note(f"there is no {key!r} in the scope: {_PUT_INTO_SCOPE[key]}")
        error.add_note(f"on {describe(scope)}")
