"""The legal-message table: transcripts of connections, and that anything else raises our error only."""

from __future__ import annotations

import types
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_channels._asgi import protocol as _asgi
from trio_channels._asgi.protocol import Protocol, State
from trio_channels.exceptions import IllegalMessage, ServerProtocolError

WEBSOCKET = {"type": "websocket", "subprotocols": ["chat", "news"], "extensions": {"websocket.http.response": {}}}
HTTP = {"type": "http", "extensions": {"http.response.push": {}, "http.response.trailers": {}}}

ACCEPT = {"type": "websocket.accept"}
TEXT = {"type": "websocket.send", "text": "x"}
CLOSE = {"type": "websocket.close"}
DENIAL_START = {"type": "websocket.http.response.start", "status": 403}
DENIAL_BODY = {"type": "websocket.http.response.body"}
START = {"type": "http.response.start", "status": 200}
BODY = {"type": "http.response.body", "body": b"x"}
MORE = {"type": "http.response.body", "more_body": True}
PUSH = {"type": "http.response.push", "path": "/"}
TRAILERS = {"type": "http.response.trailers", "headers": []}
HINT = {"type": "http.response.early_hint", "links": []}


def run(scope: dict[str, Any], *messages: dict[str, Any]) -> Protocol:
    protocol = Protocol(scope)
    for message in messages:
        protocol.sending(message)
    return protocol


# -- legal message sequences, as transcripts --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scope", "transcript", "state"),
    [
        (WEBSOCKET, [], State.CONNECTING),
        (WEBSOCKET, [ACCEPT], State.OPEN),
        (WEBSOCKET, [ACCEPT, TEXT, TEXT], State.OPEN),
        (WEBSOCKET, [ACCEPT, TEXT, CLOSE], State.CLOSED),
        (WEBSOCKET, [CLOSE], State.CLOSED),
        (WEBSOCKET, [DENIAL_START], State.DENYING),
        (WEBSOCKET, [DENIAL_START, DENIAL_BODY | {"more_body": True}], State.DENYING),
        (WEBSOCKET, [DENIAL_START, DENIAL_BODY | {"more_body": True}, DENIAL_BODY], State.CLOSED),
        (HTTP, [], State.REQUEST),
        (HTTP, [START], State.RESPONDING),
        (HTTP, [START, MORE, MORE], State.RESPONDING),
        (HTTP, [START, MORE, BODY], State.CLOSED),
        (HTTP, [PUSH, START, PUSH, BODY, TRAILERS], State.CLOSED),
        ({"type": "channel"}, [{"type": "anything"}, TEXT, BODY], State.ANY),
        ({"type": "lifespan"}, [{"type": "lifespan.startup.complete"}], State.ANY),
    ],
)
def test_legal_transcript_leads_to_a_state(scope: dict[str, Any], transcript: list[Any], state: State) -> None:
    assert run(scope, *transcript).state is state


@pytest.mark.parametrize(
    ("scope", "transcript", "illegal"),
    [
        (WEBSOCKET, [], TEXT),
        (WEBSOCKET, [], START),
        (WEBSOCKET, [], DENIAL_BODY),
        (WEBSOCKET, [ACCEPT], ACCEPT),
        (WEBSOCKET, [ACCEPT], DENIAL_START),
        (WEBSOCKET, [ACCEPT, CLOSE], TEXT),
        (WEBSOCKET, [ACCEPT, CLOSE], CLOSE),
        (WEBSOCKET, [DENIAL_START], DENIAL_START),
        (WEBSOCKET, [DENIAL_START], ACCEPT),
        (WEBSOCKET, [DENIAL_START], CLOSE),
        (WEBSOCKET, [DENIAL_START, DENIAL_BODY], DENIAL_BODY),
        ({"type": "websocket"}, [], DENIAL_START),
        (HTTP, [], BODY),
        (HTTP, [], TEXT),
        (HTTP, [], TRAILERS),
        (HTTP, [START], START),
        (HTTP, [START, BODY], BODY),
        (HTTP, [START, BODY], PUSH),
        (HTTP, [], HINT),  # the server has no such extension
        ({"type": "http", "extensions": None}, [], PUSH),
        ({"type": "http", "extensions": {"": {}}}, [], {"type": "made.up"}),
    ],
)
def test_what_the_state_does_not_allow_is_refused_and_the_state_kept(
    scope: dict[str, Any], transcript: list[Any], illegal: dict[str, Any]
) -> None:
    protocol = run(scope, *transcript)
    before = protocol.state
    with pytest.raises(IllegalMessage):
        protocol.sending(illegal)
    assert protocol.state is before


def test_error_names_what_could_be_sent() -> None:
    with pytest.raises(
        IllegalMessage, match=r"'websocket.accept' cannot be sent while the websocket is open; expected"
    ):
        run(WEBSOCKET, ACCEPT, ACCEPT)
    with pytest.raises(IllegalMessage, match="closed; expected nothing"):
        run(HTTP, START, BODY, BODY)


# -- fields -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "message",
    [
        ACCEPT | {"subprotocol": "chat"},
        ACCEPT | {"subprotocol": None},
        ACCEPT | {"headers": [(b"x-a", b"\xe9"), [b"x-b", b""]]},
        CLOSE | {"code": 1000},
        CLOSE | {"code": 4999, "reason": "r" * 123},
        CLOSE | {"reason": None},
        DENIAL_START | {"headers": ()},
        types.MappingProxyType(ACCEPT),
    ],
    ids=repr,
)
def test_these_fields_are_legal_before_accept(message: Any) -> None:
    Protocol(WEBSOCKET).sending(message)


@pytest.mark.parametrize(
    ("message", "complaint"),
    [
        (ACCEPT | {"subprotocol": "other"}, "one the client offered"),
        (ACCEPT | {"subprotocol": b"chat"}, "subprotocol must be a str or None"),
        (ACCEPT | {"headers": {"x-a": "b"}}, "headers must be a list"),
        (ACCEPT | {"headers": None}, "headers must be a list"),
        (ACCEPT | {"headers": ["ab"]}, "pair"),
        (ACCEPT | {"headers": [(b"a",)]}, "pair"),
        (ACCEPT | {"headers": [("a", b"b")]}, "pair"),
        (ACCEPT | {"headers": [(b"a", "b")]}, "pair"),
        (ACCEPT | {"headers": [(b"", b"b")]}, "token"),
        (ACCEPT | {"headers": [(b":path", b"b")]}, "token"),
        (ACCEPT | {"headers": [(b"a\n", b"b")]}, "token"),
        (ACCEPT | {"headers": [(b"a b", b"b")]}, "token"),
        (ACCEPT | {"headers": [(b"a", b"b\r\nset-cookie: c")]}, "CR, LF or NUL"),
        (ACCEPT | {"headers": [(b"a", b"\0")]}, "CR, LF or NUL"),
        (CLOSE | {"code": 999}, "close code"),
        (CLOSE | {"code": 5000}, "close code"),
        (CLOSE | {"code": 1005}, "close code"),
        (CLOSE | {"code": 1015}, "close code"),
        (CLOSE | {"code": "1000"}, "close code"),
        (CLOSE | {"code": True}, "close code"),
        (CLOSE | {"code": None}, "close code"),
        (CLOSE | {"reason": b"bye"}, "reason must be a str"),
        (CLOSE | {"reason": "\u00e4" * 62}, "123 bytes"),
        (CLOSE | {"reason": "\ud800"}, "123 bytes of UTF-8"),
        (DENIAL_START | {"status": 99}, "status"),
        (DENIAL_START | {"status": 600}, "status"),
        (DENIAL_START | {"status": "200"}, "status"),
        (DENIAL_START | {"status": True}, "status"),
        (DENIAL_START | {"status": None}, "status"),
        (DENIAL_START | {"headers": "x"}, "headers"),
    ],
    ids=repr,
)
def test_these_fields_are_illegal_before_accept(message: dict[str, Any], complaint: str) -> None:
    protocol = Protocol(WEBSOCKET)
    with pytest.raises(IllegalMessage, match=f"malformed: .*{complaint}"):
        protocol.sending(message)
    assert protocol.state is State.CONNECTING


@pytest.mark.parametrize(
    "message",
    [{"text": ""}, {"text": "\u00e4\U0001f600", "bytes": None}, {"bytes": b""}, {"text": None, "bytes": b"x"}],
)
def test_frame_holds_text_or_bytes(message: dict[str, Any]) -> None:
    run(WEBSOCKET, ACCEPT, {"type": "websocket.send"} | message)


@pytest.mark.parametrize(
    ("message", "complaint"),
    [
        ({}, "exactly one"),
        ({"text": None, "bytes": None}, "exactly one"),
        ({"text": "a", "bytes": b"b"}, "exactly one"),
        ({"text": b"a"}, "text must be a str; got bytes"),
        ({"text": "\udcff"}, "UTF-8"),
        ({"bytes": "a"}, "bytes must be bytes; got str"),
        ({"bytes": bytearray(b"a")}, "bytes must be bytes; got bytearray"),
    ],
    ids=repr,
)
def test_frame_of_anything_else_is_refused(message: dict[str, Any], complaint: str) -> None:
    with pytest.raises(IllegalMessage, match=complaint):
        run(WEBSOCKET, ACCEPT, {"type": "websocket.send"} | message)


@pytest.mark.parametrize("body", ["text", None, bytearray(b"x")], ids=repr)
def test_body_is_bytes(body: Any) -> None:
    with pytest.raises(IllegalMessage, match="body must be bytes"):
        run(HTTP, START, BODY | {"body": body})


def test_subprotocol_is_unchecked_without_an_offer() -> None:
    assert run({"type": "websocket"}, ACCEPT | {"subprotocol": "any"}).state is State.OPEN


# -- invalid messages -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["websocket", "http", "channel"])
@pytest.mark.parametrize(
    "message", [None, 5, "type", b"type", [], ["type"], {}, {"type": None}, {"type": 1}, {"type": []}], ids=repr
)
def test_what_has_no_type_is_no_message(kind: str, message: Any) -> None:
    protocol = Protocol({"type": kind})
    with pytest.raises(IllegalMessage, match="a message must be a dict with a 'type'"):
        protocol.sending(message)
    with pytest.raises(ServerProtocolError, match="without a type"):
        protocol.received(message)


junk = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.binary(max_size=5) | st.floats(),
    lambda inner: st.lists(inner, max_size=3) | st.tuples(inner, inner) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=6,
)
kinds = st.sampled_from(sorted({kind for table in _asgi._SENDABLE.values() for kind in table} | set(_asgi._EXTENSIONS)))
headers = st.lists(st.tuples(st.binary(max_size=5), st.binary(max_size=5)), max_size=3)
fields = st.fixed_dictionaries(
    {"type": kinds | junk},
    optional={
        "text": st.text() | junk,
        "bytes": st.binary() | junk,
        "code": st.integers(900, 5100) | junk,
        "reason": st.text() | junk,
        "status": st.integers(90, 610) | junk,
        "headers": headers | junk,
        "subprotocol": st.sampled_from(["chat", "no"]) | junk,
        "body": st.binary() | junk,
        "more_body": st.booleans() | junk,
    },
)


@given(
    st.sampled_from([WEBSOCKET, HTTP, {"type": "websocket"}, {"type": "channel"}]), st.lists(fields | junk, max_size=5)
)
def test_any_message_is_legal_or_raises_our_error(scope: dict[str, Any], messages: list[Any]) -> None:
    protocol = Protocol(scope)
    for message in messages:
        before = protocol.state
        try:
            protocol.sending(message)
        except IllegalMessage:
            assert protocol.state is before


@given(st.sampled_from(["websocket", "http", "channel"]), junk | fields)
def test_any_event_is_allowed_or_raises_our_error(kind: str, event: Any) -> None:
    try:
        Protocol({"type": kind}).received(event)
    except ServerProtocolError:
        pass


# -- events from the server -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "event", "gone"),
    [
        ("websocket", "websocket.connect", False),
        ("websocket", "websocket.receive", False),
        ("websocket", "websocket.disconnect", True),
        ("http", "http.request", False),
        ("http", "http.disconnect", True),
        ("channel", "whatever", False),
    ],
)
def test_disconnect_event_says_that_the_client_is_gone(kind: str, event: str, gone: bool) -> None:
    protocol = Protocol({"type": kind})
    protocol.received({"type": event})
    assert protocol.disconnected is gone


def test_event_of_another_protocol_is_the_servers_fault() -> None:
    with pytest.raises(ServerProtocolError, match=r"'http.request' to a websocket scope; expected one of"):
        Protocol(WEBSOCKET).received({"type": "http.request"})


# -- for log lines ----------------------------------------------------------------------------------------------------


def test_repr_tells_the_state() -> None:
    protocol = run(WEBSOCKET, ACCEPT)
    assert repr(protocol) == "<Protocol websocket open>"
    protocol.received({"type": "websocket.disconnect"})
    assert repr(protocol) == "<Protocol websocket open disconnected>"


@pytest.mark.parametrize(
    ("scope", "shown"),
    [
        ({"type": "websocket", "path": "/ws/", "client": ["::1", 5]}, "websocket /ws/ from ::1:5"),
        ({"type": "http", "path": "/\u00e4/", "client": None}, "http /\u00e4/"),
        ({"type": "channel", "channel": "jobs"}, "channel jobs"),
        ({"type": "lifespan"}, "lifespan "),
        ({"type": "http", "path": "/a\r\nFORGED \u2028\x1b[2J"}, r"http /a\r\nFORGED \u2028\x1b[2J"),
        ({"type": "http", "path": "/\ud800"}, r"http /\ud800"),
    ],
)
def test_connection_is_described_on_one_line(scope: dict[str, Any], shown: str) -> None:
    assert _asgi.describe(scope) == shown


def test_address_that_the_server_does_not_know_is_a_question_mark() -> None:
    assert _asgi.address({"type": "http"}) == "?"


@pytest.mark.parametrize(
    ("said", "version"), [("2.0", (2, 0)), ("2.4", (2, 4)), ("2.10", (2, 10)), ("2.5-draft", (2,)), (None, ())]
)
def test_spec_version_is_compared_as_numbers(said: str, version: tuple[int, ...]) -> None:
    assert _asgi.spec_version({"type": "http", "asgi": {"spec_version": said}}) == version


def test_server_without_a_spec_version_follows_the_first() -> None:
    assert _asgi.spec_version({"type": "http"}) == (2, 0)


@pytest.mark.parametrize(
    ("error", "scope", "remedy"),
    [
        (KeyError("user"), {}, "put AuthMiddlewareStack"),
        (KeyError("session"), {}, "put AuthMiddlewareStack"),
        (KeyError("url_route"), {}, "route to the consumer with a URLRouter"),
        (KeyError("user"), {"user": None}, None),
        (KeyError("text"), {}, None),
        (KeyError(["user"]), {}, None),
        (KeyError(), {}, None),
        (LookupError("user"), {}, None),
    ],
    ids=repr,
)
def test_missing_key_of_the_scope_has_a_note(error: Exception, scope: dict[str, Any], remedy: str | None) -> None:
    _asgi.note_connection(error, {"type": "websocket", "path": "/", **scope})
    _asgi.note_connection(error, {"type": "websocket", "path": "/"})  # a router's note, with the server's scope
    notes = [note for note in error.__notes__ if not note.startswith("on websocket /")]
    assert [remedy] == [note.partition(": ")[2][: len(remedy)] for note in notes] if remedy else notes == []


def test_exceptions_connection_is_noted_once_by_the_innermost() -> None:
    error = LookupError()
    _asgi.note_connection(error, {"type": "websocket", "path": "/chat/", "client": ("192.0.2.7", 4711)})
    _asgi.note_connection(error, {"type": "websocket", "path": "/chat/", "client": ("10.0.0.1", 80)})
    assert error.__notes__ == ["on websocket /chat/ from 192.0.2.7:4711"]


@pytest.mark.parametrize(
    ("value", "length"),
    [(b"12", 12), (b"9" * 5_000, int("9" * 20)), *((bad, 0) for bad in (b"", b"x", b"-1", b"+1", b"1_0", b"\xb2"))],
)
def test_announced_length(value: bytes, length: int) -> None:
    headers = [(b"host", b"a"), (b"content-length", value)]
    assert _asgi.announced_length({"type": "http", "headers": headers}) == length
    assert _asgi.announced_length({"type": "http"}) == 0
