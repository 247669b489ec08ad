"""The client behind a proxy: claims that are believed, and claims that are not."""

from __future__ import annotations

from typing import Any

import pytest
from hypercorn.middleware import ProxyFixMiddleware

from trio_channels.exceptions import ConfigurationError
from trio_channels.proxy_headers import ProxyHeadersMiddleware

PROXY = ("127.0.0.1", 40000)
STRANGER = ("203.0.113.66", 40000)


async def seen(
    headers: list[tuple[bytes, bytes]], client: Any = PROXY, /, *, kind: str = "http", **options: Any
) -> dict[str, Any]:
    """The scope that the application gets."""
    scopes: list[Any] = []

    async def application(scope: Any, receive: Any, send: Any) -> None:
        scopes.append(scope)

    scope = {
        "type": kind,
        "client": client,
        "scheme": "ws" if kind == "websocket" else "http",
        "headers": [(b"host", b"inside"), *headers],
    }
    before = {**scope, "headers": list(scope["headers"])}
    await ProxyHeadersMiddleware(application, **options)(scope, None, None)  # type: ignore[arg-type]
    assert scope == before, "the server's own scope must stay as it was"
    return dict(scopes[0])


def x_for(*values: str) -> list[tuple[bytes, bytes]]:
    return [(b"x-forwarded-for", value.encode()) for value in values]


def forwarded(*values: str) -> list[tuple[bytes, bytes]]:
    return [(b"forwarded", value.encode()) for value in values]


# -- X-Forwarded ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "client"),
    [
        ("198.51.100.7", ("198.51.100.7", 0)),
        ("198.51.100.7:4711", ("198.51.100.7", 4711)),
        ("2001:db8::1", ("2001:db8::1", 0)),
        ("[2001:db8::1]", ("2001:db8::1", 0)),
        ("[2001:DB8::1]:443", ("2001:db8::1", 443)),
        ("::ffff:198.51.100.7", ("198.51.100.7", 0)),
    ],
)
async def test_trusted_proxy_says_who_the_client_is(value: str, client: tuple[str, int]) -> None:
    assert (await seen(x_for(value)))["client"] == client


@pytest.mark.parametrize(
    "value",
    [
        "",
        "unknown",
        "example.com",
        "1.2.3",
        "999.1.1.1",
        "198.51.100.7:99999",
        "[::1",
        "1.2.3.4]",
        "é",
        "0x7f.1",
        "::1%x",
    ],
)
async def test_address_that_is_none_leaves_the_peer(value: str) -> None:
    assert (await seen(x_for(value)))["client"] == PROXY


async def test_claims_left_of_the_proxys_word_are_not_believed() -> None:
    assert (await seen(x_for("127.0.0.1, 10.1.1.1, 198.51.100.7")))["client"] == ("198.51.100.7", 0)


async def test_claim_in_a_header_line_of_its_own_is_not_believed_either() -> None:
    assert (await seen(x_for("10.1.1.1", "198.51.100.7")))["client"] == ("198.51.100.7", 0)


async def test_trusted_proxies_in_a_row_are_passed_over() -> None:
    scope = await seen(x_for("10.9.9.9, 198.51.100.7, 10.0.0.2, 10.0.0.3"), ("10.0.0.4", 1), trusted=["10.0.0.0/24"])
    assert scope["client"] == ("198.51.100.7", 0)


async def test_where_all_are_trusted_the_first_is_the_client() -> None:
    scope = await seen(x_for("10.0.0.1, 10.0.0.2"), ("10.0.0.3", 1), trusted=["10.0.0.0/8"])
    assert scope["client"] == ("10.0.0.1", 0)


async def test_rubbish_ends_the_search_for_a_proxys_word() -> None:
    scope = await seen(x_for("198.51.100.7, rubbish, 10.0.0.2"), ("10.0.0.3", 1), trusted=["10.0.0.0/8"])
    assert scope["client"] == ("10.0.0.2", 0)


async def test_with_every_peer_trusted_only_the_peers_own_word_counts() -> None:
    assert (await seen(x_for("10.1.1.1, 198.51.100.7"), STRANGER, trusted=["*"]))["client"] == ("198.51.100.7", 0)


@pytest.mark.parametrize(
    ("kind", "value", "scheme"),
    [
        ("http", "https", "https"),
        ("http", "HTTPS", "https"),
        ("http", "wss", "https"),
        ("http", "http", "http"),
        ("websocket", "https", "wss"),
        ("websocket", "wss", "wss"),
        ("websocket", "http", "ws"),
        ("http", "gopher", "http"),
        ("websocket", "", "ws"),
    ],
)
async def test_scheme_is_one_that_fits_the_scope(kind: str, value: str, scheme: str) -> None:
    assert (await seen([(b"x-forwarded-proto", value.encode())], kind=kind))["scheme"] == scheme


async def test_scheme_is_the_one_at_the_clients_place() -> None:
    headers = [*x_for("6.6.6.6, 198.51.100.7, 10.0.0.2"), (b"x-forwarded-proto", b"http, https, http")]
    assert (await seen(headers, ("10.0.0.3", 1), trusted=["10.0.0.0/8"]))["scheme"] == "https"


async def test_scheme_that_the_outermost_proxy_alone_has_set_counts() -> None:
    headers = [*x_for("198.51.100.7, 10.0.0.2"), (b"x-forwarded-proto", b"https")]
    assert (await seen(headers, ("10.0.0.3", 1), trusted=["10.0.0.0/8"]))["scheme"] == "https"


async def test_claimed_scheme_before_the_proxys_is_not_believed() -> None:
    headers = [*x_for("6.6.6.6, 198.51.100.7"), (b"x-forwarded-proto", b"https, http")]
    assert (await seen(headers))["scheme"] == "http"


async def test_host_stays_unless_it_is_asked_for() -> None:
    headers = [(b"x-forwarded-host", b"example.com")]
    assert (b"host", b"inside") in (await seen(headers))["headers"]


@pytest.mark.parametrize("host", [b"example.com", b"example.com:8443", b"[2001:db8::1]:80", b"198.51.100.7"])
async def test_host_that_is_asked_for_replaces_the_header(host: bytes) -> None:
    scope = await seen([(b"x-forwarded-host", host)], host=True)
    assert [value for name, value in scope["headers"] if name == b"host"] == [host]


@pytest.mark.parametrize("host", [b"", b"a b", b"evil.test/path", b"user@evil.test", b"a\r\nb", "é".encode()])
async def test_host_that_is_none_is_not_taken(host: bytes) -> None:
    scope = await seen([(b"x-forwarded-host", host)], host=True)
    assert [value for name, value in scope["headers"] if name == b"host"] == [b"inside"]


# -- Forwarded (RFC 7239) ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "client"),
    [
        ("for=198.51.100.7", ("198.51.100.7", 0)),
        ('For="198.51.100.7:4711"', ("198.51.100.7", 4711)),
        ('for="[2001:db8:cafe::17]:4711";proto=https', ("2001:db8:cafe::17", 4711)),
        ("for=6.6.6.6, for=198.51.100.7;by=203.0.113.43", ("198.51.100.7", 0)),
        (r'for="198.51\.100.7"', ("198.51.100.7", 0)),
        ("proto=https", PROXY),
        ("for=unknown", PROXY),
        ("for=_hidden", PROXY),
    ],
)
async def test_standard_header_says_who_the_client_is(value: str, client: tuple[str, int]) -> None:
    assert (await seen(forwarded(value), headers="forwarded"))["client"] == client


async def test_forwarded_header_tells_scheme_and_host() -> None:
    value = "for=6.6.6.6;proto=http;host=evil.test, for=198.51.100.7;proto=https;host=example.com, for=10.0.0.2;host=b"
    scope = await seen(forwarded(value), ("10.0.0.3", 1), headers="forwarded", host=True, trusted=["10.0.0.0/8"])
    assert scope["scheme"] == "https"
    assert scope["headers"][0] == (b"host", b"example.com")


@pytest.mark.parametrize(
    "value",
    ['for="6.6.6.6', 'for="6.6.6.6, for=198.51.100.7', 'for="a, for="[2001:db8::1]"', "for", "for=a b", ";"],
)
async def test_malformed_line_is_believed_in_nothing(value: str) -> None:
    assert (await seen(forwarded(value), headers="forwarded"))["client"] == PROXY


async def test_malformed_line_of_the_client_does_not_hide_the_proxys_own() -> None:
    scope = await seen(forwarded('for="6.6.6.6', "for=198.51.100.7"), headers="forwarded")
    assert scope["client"] == ("198.51.100.7", 0)


async def test_family_that_the_proxy_does_not_set_is_not_read() -> None:
    headers = [*forwarded("for=6.6.6.6;proto=https"), *x_for("198.51.100.7")]
    scope = await seen(headers)
    assert (scope["client"], scope["scheme"]) == (("198.51.100.7", 0), "http")
    assert (await seen(headers, headers="forwarded"))["client"] == ("6.6.6.6", 0)


# -- whom to trust ----------------------------------------------------------------------------------------------------


async def test_strangers_headers_do_not_reach_the_application() -> None:
    headers = [
        *x_for("127.0.0.1"),
        *forwarded("for=127.0.0.1;proto=https"),
        (b"x-forwarded-proto", b"https"),
        (b"x-forwarded-host", b"evil.test"),
        (b"x-other", b"1"),
    ]
    scope = await seen(headers, STRANGER, host=True)
    assert (scope["client"], scope["scheme"]) == (STRANGER, "http")
    assert scope["headers"] == [(b"host", b"inside"), (b"x-other", b"1")]


@pytest.mark.parametrize(
    ("trusted", "client", "is_trusted"),
    [
        (["10.0.0.0/8"], ("10.1.2.3", 1), True),
        (["10.0.0.0/8"], ("11.1.2.3", 1), False),
        (["10.1.2.3"], ("10.1.2.3", 1), True),
        (["10.0.0.0/8"], ("::ffff:10.1.2.3", 1), True),
        (["2001:db8::/32"], ("2001:db8::9", 1), True),
        (["2001:db8::/32"], ("10.1.2.3", 1), False),
        (["unix"], None, True),
        (["127.0.0.1"], None, False),
        (["unix"], ("127.0.0.1", 1), False),
        (["127.0.0.1"], ("testclient", 1), False),
        ([], ("127.0.0.1", 1), False),
        (["*"], None, True),
    ],
)
async def test_who_is_trusted(trusted: list[str], client: Any, is_trusted: bool) -> None:
    scope = await seen(x_for("198.51.100.7"), client, trusted=trusted)
    assert scope["client"] == (("198.51.100.7", 0) if is_trusted else client)


async def test_other_scopes_and_scopes_without_such_headers_pass_untouched() -> None:
    scopes: list[Any] = []

    async def application(scope: Any, receive: Any, send: Any) -> None:
        scopes.append(scope)

    middleware = ProxyHeadersMiddleware(application)
    lifespan: dict[str, Any] = {"type": "lifespan"}
    plain: dict[str, Any] = {"type": "http", "headers": [(b"host", b"a")], "client": PROXY}
    await middleware(lifespan, None, None)  # type: ignore[arg-type]
    await middleware(plain, None, None)  # type: ignore[arg-type]
    assert scopes[0] is lifespan
    assert scopes[1] is plain


@pytest.mark.parametrize(
    "options", [{"trusted": "127.0.0.1"}, {"trusted": ["example.com"]}, {"trusted": ["10.0.0.1/8"]}, {"headers": "via"}]
)
def test_impossible_argument_is_refused_by_the_middleware(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        ProxyHeadersMiddleware(None, **options)  # type: ignore[arg-type]


# -- lookalikes of a proxy's headers ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [b"x_forwarded_for", b"x-forwarded_proto", b"x-forwarded-port", b"x-real-ip"])
async def test_spoofed_proxy_values_are_not_believed(name: bytes) -> None:
    assert (await seen([(name, b"1")], STRANGER))["headers"] == [(b"host", b"inside")]


async def test_trusted_proxy_does_not_pass_on_a_name_with_an_underscore() -> None:
    scope = await seen([(b"x_forwarded_proto", b"https"), (b"x-real-ip", b"198.51.100.7")])
    assert scope["scheme"] == "http"
    assert scope["headers"] == [(b"host", b"inside"), (b"x-real-ip", b"198.51.100.7")]


# -- compared with hypercorn's middleware -----------------------------------------------------------------------------


@pytest.mark.parametrize(("middleware", "copied"), [(ProxyFixMiddleware, True), (ProxyHeadersMiddleware, False)])
async def test_lifespan_state_is_not_copied_deeply(middleware: Any, copied: bool) -> None:
    """Defect D17 of hypercorn."""
    pool: list[str] = []
    scopes: list[Any] = []

    async def application(scope: Any, receive: Any, send: Any) -> None:
        scopes.append(scope)

    scope = {"type": "http", "client": PROXY, "scheme": "http", "headers": x_for("198.51.100.7"), "state": {"p": pool}}
    await middleware(application)(scope, None, None)
    assert scopes[0]["client"][0] == "198.51.100.7"
    assert (scopes[0]["state"]["p"] is not pool) is copied
