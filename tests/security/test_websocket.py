"""Which web pages may open a WebSocket. None of these tests may use the database: pytest-django would fail them."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import trio
from django.test import override_settings
from hypothesis import example, given
from hypothesis import strategies as st

from trio_channels._threads.database import thread_pool
from trio_channels.auth import AuthMiddlewareStack
from trio_channels.exceptions import ConfigurationError
from trio_channels.security.websocket import AllowedHostsOriginValidator, Origin, OriginValidator, parse_origin
from trio_channels.testing import ScriptedConnection


async def nowhere(scope: Any, receive: Any, send: Any) -> None:
    raise AssertionError("the application was run")


async def accepts(scope: Any, receive: Any, send: Any) -> None:
    await receive()
    await send({"type": "websocket.accept"})


def allows(patterns: list[str], *origins: str | bytes) -> bool:
    headers = [origin.encode("latin-1") if isinstance(origin, str) else origin for origin in origins]
    return OriginValidator(nowhere, patterns).allows(headers)


async def handshake(application: Any, *origins: bytes, name: bytes = b"origin", **more: Any) -> list[dict[str, Any]]:
    """The events that are sent to the client of one handshake with these Origin headers."""
    headers = [(name, origin) for origin in origins] + [(b"cookie", b"sessionid=abcdefgh12345678")]
    scope = {"type": "websocket", "path": "/ws/", "headers": headers, **more}
    with trio.fail_after(10):
        return await ScriptedConnection(scope, [{"type": "websocket.connect"}]).run(application)


ACCEPTED = [{"type": "websocket.accept"}]
DENIED = [{"type": "websocket.close"}]


# -- allowed origins --------------------------------------------------------------------------------------------------

#: (patterns, origin, whether it is allowed)
TABLE = [
    # a host alone: a site, over HTTP or HTTPS, any port
    ("example.com", "http://example.com", True),
    ("example.com", "https://example.com", True),
    ("example.com", "https://example.com:8443", True),
    ("example.com", "app://example.com", False),
    ("example.com", "chrome-extension://example.com", False),
    ("example.com", "file://example.com", False),
    ("example.com", "ws://example.com", False),
    (".example.com", "app://a.example.com", False),
    ("example.com:80", "ws://example.com", False),
    ("*", "app://example.com", True),
    ("example.com", "http://EXAMPLE.com", True),
    ("EXAMPLE.com", "http://example.COM", True),
    ("example.com", "HTTP://example.com", True),
    ("example.com", "http://sub.example.com", False),
    ("example.com", "http://example.com.evil.test", False),
    ("example.com", "http://evil-example.com", False),
    ("example.com", "http://example.co", False),
    ("example.com", "http://example.com.", False),  # another origin to browsers, too (URL standard, 4.6)
    # a host and its subdomains
    (".example.com", "http://example.com", True),
    (".example.com", "http://a.b.example.com", True),
    (".example.com", "http://evilexample.com", False),
    (".example.com", "http://example.com.evil.test", False),
    # with a scheme: the scheme and the port must be the same
    ("https://example.com", "https://example.com", True),
    ("https://example.com", "https://example.com:443", True),
    ("https://example.com:443", "https://example.com", True),
    ("https://example.com", "http://example.com", False),
    ("https://example.com", "https://example.com:8443", False),
    ("https://example.com:8443", "https://example.com:8443", True),
    ("https://example.com:8443", "https://example.com", False),
    ("http://example.com", "http://example.com:80", True),
    ("http://example.com", "http://example.com:443", False),
    ("http://example.com:443", "https://example.com", False),
    ("https://.example.com", "https://a.example.com", True),
    ("https://.example.com:8443", "https://a.example.com:8443", True),
    ("https://.example.com", "http://a.example.com", False),
    ("app://example.com", "app://example.com", True),
    ("chrome-extension://abcdef", "chrome-extension://abcdef", True),
    ("chrome-extension://abcdef", "https://abcdef", False),
    # a port without a scheme
    ("example.com:8000", "http://example.com:8000", True),
    ("example.com:8000", "https://example.com:8000", True),
    ("example.com:8000", "http://example.com:8001", False),
    ("example.com:8000", "http://example.com", False),
    ("example.com:80", "http://example.com", True),
    # addresses
    ("127.0.0.1", "http://127.0.0.1:8000", True),
    ("127.0.0.1", "http://127.0.0.2", False),
    ("[::1]", "http://[::1]:8000", True),
    ("http://[::1]:8000", "http://[::1]:8000", True),
    ("[::1]", "http://[::2]", False),
    ("[2001:DB8::1]", "http://[2001:db8::1]", True),
    ("[::1]", "http://::1", False),
    ("[::1]", "http://[::1", False),
    # international names: browsers send them encoded, people may configure them unencoded
    ("münchen.example", "https://xn--mnchen-3ya.example", True),
    ("xn--mnchen-3ya.example", "https://xn--mnchen-3ya.example", True),
    (".münchen.example", "https://a.xn--mnchen-3ya.example", True),
    ("munchen.example", "https://xn--mnchen-3ya.example", False),
    # a value that is no origin is never allowed, whatever the patterns
    ("null", "null", False),
    ("example.com", "", False),
    ("example.com", "example.com", False),
    ("example.com", "//example.com", False),
    ("example.com", "http://", False),
    ("example.com", "http://example.com/", False),
    ("example.com", "http://example.com/page", False),
    ("example.com", "http://example.com?x", False),
    ("example.com", "http://example.com#x", False),
    ("example.com", "http://user@example.com", False),
    ("example.com", "http://user:password@example.com", False),
    ("example.com", "http://example.com@evil.test", False),
    ("example.com", "http://evil.test\\@example.com", False),
    ("example.com", "http://evil.test\\.example.com", False),
    ("example.com", "http://example.com:", False),
    ("example.com", "http://example.com:0", False),
    ("example.com", "http://example.com:65535", True),
    ("example.com", "http://example.com:65536", False),
    ("example.com", "http://example.com:99999999", False),
    ("example.com", "http://example.com:-1", False),
    ("example.com", "http://example.com:+80", False),
    ("example.com", "http://example.com:8o", False),
    ("example.com", "http://example.com:\xb2", False),
    ("example.com", "http://example.com:80:80", False),
    ("example.com", " http://example.com", False),
    ("example.com", "http://example.com ", False),
    ("example.com", "http://example.com\n", False),
    ("example.com", "http://example.com http://evil.test", False),
    ("example.com", "http://evil.test, http://example.com", False),
    ("example.com", "http://evil.test\0.example.com", False),
    ("example.com", "http//example.com", False),
    ("example.com", "1http://example.com", False),
    # malformed patterns allow nothing
    ("", "http://example.com", False),
    (".", "http://example.com", False),
    ("example.com/path", "http://example.com", False),
    ("*.example.com", "http://a.example.com", False),
    ("user@example.com", "http://example.com", False),
]


@pytest.mark.parametrize(("pattern", "origin", "allowed"), TABLE)
def test_table_of_patterns_and_origins(pattern: str, origin: str, allowed: bool) -> None:
    assert allows([pattern], origin) is allowed


def test_one_matching_pattern_of_several_is_enough() -> None:
    assert allows(["a.test", "https://b.test", ".c.test"], "https://b.test")
    assert not allows(["a.test", "https://b.test", ".c.test"], "https://d.test")


def test_no_pattern_allows_nothing() -> None:
    assert not allows([], "http://example.com")


@pytest.mark.parametrize(
    "origins",
    [
        pytest.param([], id="none"),
        pytest.param([b"http://example.com"] * 2, id="the same twice"),
        pytest.param([b"http://example.com", b"http://evil.test"], id="two"),
        pytest.param([b"null"], id="null"),
    ],
)
def test_anything_but_one_origin_is_refused(origins: list[bytes]) -> None:
    assert not allows(["example.com", "null"], *origins)
    assert allows(["example.com", "*"], *origins)


@given(st.lists(st.binary(max_size=60), max_size=3))
@example([b"http://[::1%25eth0]"])
@example([b"http://xn--a"])
@example([b"http://" + b"\xe4" * 70])
@example([b"http://\xad.com"])
@example([b"http://..\xe4"])
def test_any_bytes_are_allowed_or_refused_but_never_an_error(headers: list[bytes]) -> None:
    assert OriginValidator(nowhere, [".example.com", "[::1]", "https://\xe4.test"]).allows(headers) is False


@given(
    st.sampled_from(["http", "https", "app"]),
    st.from_regex(r"[a-z]{1,5}(\.[a-z]{1,5}){0,2}", fullmatch=True),
    st.one_of(st.none(), st.integers(1, 65535)),
)
def test_origin_is_allowed_and_similar_hosts_are_refused(scheme: str, host: str, port: int | None) -> None:
    origin = f"{scheme}://{host}" + (f":{port}" if port else "")
    assert allows([origin], origin)
    assert allows([host], origin) is (scheme != "app")
    assert not allows([f"x{host}"], origin)
    assert not allows([f"{host}x"], origin)


@given(st.text(max_size=40))
def test_any_text_is_an_origin_or_none(text: str) -> None:
    parsed = parse_origin(text)
    assert parsed is None or (parsed.host.isascii() and parsed.host == parsed.host.lower())


def test_origin_is_parsed_into_its_parts() -> None:
    assert parse_origin("HTTPS://Example.com:8443") == Origin("https", "example.com", 8443)
    assert parse_origin("wss://example.com") == Origin("wss", "example.com", 443)
    assert parse_origin("app://example.com") == Origin("app", "example.com", None)
    assert parse_origin(".example.com") == Origin(None, ".example.com", None)


def test_rule_can_be_replaced() -> None:
    class OnlyApps(OriginValidator):
        def valid_origin(self, origin: Origin, patterns: list[str]) -> bool:
            return origin.scheme == "app"

    validator = OnlyApps(nowhere, [])
    assert validator.allows([b"app://anything"])
    assert not validator.allows([b"http://anything"])
    assert not validator.allows([b"null"])


# -- allowed and denied handshakes ------------------------------------------------------------------------------------


async def test_allowed_origin_reaches_the_application() -> None:
    assert await handshake(OriginValidator(accepts, ["example.com"]), b"http://example.com") == ACCEPTED


async def test_header_name_in_capitals_is_an_origin_too() -> None:
    sent = await handshake(OriginValidator(nowhere, ["a.test"]), b"http://a.test", b"http://b.test", name=b"Origin")
    assert sent == DENIED


async def test_refused_origin_reaches_no_code_and_no_query() -> None:
    stack = OriginValidator(AuthMiddlewareStack(nowhere), ["example.com"])
    assert await handshake(stack, b"http://evil.test") == DENIED
    assert thread_pool().statistics().calls == 0


async def test_denial_is_logged_once_with_client_path_and_origin(
    caplog: pytest.LogCaptureFixture,
) -> None:
    await handshake(OriginValidator(nowhere, ["example.com"]), b"http://evil.test", client=("192.0.2.1", 4000))
    (record,) = caplog.records
    assert (record.name, record.levelno) == ("trio_channels.security", logging.WARNING)
    for part in ("192.0.2.1:4000", "/ws/", "http://evil.test"):
        assert part in record.getMessage()


@pytest.mark.parametrize(
    ("validator", "origins", "remedy"),
    [
        (OriginValidator(nowhere, ["example.com"]), [b"http://evil.test"], "add its host to allowed_origins"),
        (AllowedHostsOriginValidator(nowhere), [b"http://evil.test"], "add its host to the setting ALLOWED_HOSTS"),
        (AllowedHostsOriginValidator(nowhere), [], "it has no Origin header, as clients other than browsers: route"),
    ],
)
async def test_denial_says_what_to_do(
    validator: OriginValidator, origins: list[bytes], remedy: str, caplog: pytest.LogCaptureFixture
) -> None:
    assert await handshake(validator, *origins) == DENIED
    assert remedy in caplog.messages[0]


async def test_neither_the_origin_nor_the_path_can_forge_a_log_line(caplog: pytest.LogCaptureFixture) -> None:
    await handshake(OriginValidator(nowhere, ["example.com"]), b"http://x\nERROR", path="/a\nERROR all is lost")
    assert "\n" not in caplog.messages[0]


async def test_long_origin_is_cut_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    await handshake(OriginValidator(nowhere, ["example.com"]), b"x" * 100_000)
    assert len(caplog.messages[0]) < 400


async def test_client_that_left_meanwhile_is_sent_nothing() -> None:
    scope = {"type": "websocket", "path": "/", "headers": []}
    events = [{"type": "websocket.disconnect", "code": 1006}]
    assert await ScriptedConnection(scope, events).run(OriginValidator(nowhere, ["example.com"])) == []


async def test_another_scope_is_an_error_that_says_where_the_check_belongs() -> None:
    with pytest.raises(ConfigurationError, match="around the 'websocket' application"):
        await OriginValidator(nowhere, ["*"])({"type": "http"}, None, None)  # type: ignore[arg-type]


def test_single_str_of_patterns_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="must be a list of patterns; got the str"):
        OriginValidator(nowhere, "example.com")


def test_patterns_may_come_from_any_iterable() -> None:
    validator = OriginValidator(nowhere, (pattern for pattern in ["a.test"]))
    assert validator.allows([b"http://a.test"])
    assert validator.allows([b"http://a.test"])


def test_function_of_patterns_is_asked_for_each_connection() -> None:
    patterns = ["a.test"]
    validator = OriginValidator(nowhere, lambda: patterns)
    assert not validator.allows([b"http://b.test"])
    patterns.append("b.test")
    assert validator.allows([b"http://b.test"])


def test_validator_shows_its_patterns_and_its_application() -> None:
    assert repr(OriginValidator(nowhere, ["a.test"])).startswith(
        "<OriginValidator for ['a.test'] before <function nowh"
    )


# -- ALLOWED_HOSTS ----------------------------------------------------------------------------------------------------


async def test_allowed_hosts_are_read_for_each_connection() -> None:
    validator = AllowedHostsOriginValidator(accepts)
    with override_settings(ALLOWED_HOSTS=["a.test"]):
        assert await handshake(validator, b"http://a.test") == ACCEPTED
    with override_settings(ALLOWED_HOSTS=["b.test"]):
        assert await handshake(validator, b"http://a.test") == DENIED


@pytest.mark.parametrize(
    ("origin", "allowed"),
    [
        (b"http://localhost:8000", True),
        (b"http://sub.localhost", True),
        (b"http://127.0.0.1:8000", True),
        (b"http://[::1]:8000", True),
        (b"http://example.com", False),
    ],
)
@pytest.mark.parametrize("debug", [True, False])
def test_without_allowed_hosts_only_debug_allows_localhost(origin: bytes, allowed: bool, debug: bool) -> None:
    with override_settings(ALLOWED_HOSTS=[], DEBUG=debug):
        assert AllowedHostsOriginValidator(nowhere).allows([origin]) is (allowed and debug)


def test_with_allowed_hosts_debug_allows_nothing_more() -> None:
    with override_settings(ALLOWED_HOSTS=["a.test"], DEBUG=True):
        assert not AllowedHostsOriginValidator(nowhere).allows([b"http://localhost"])
