"""The application that a scope reaches, and the client's answer where there is none."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import trio
from django.http import Http404
from django.test import override_settings
from django.urls import URLPattern, include, path, re_path, register_converter
from django.urls.exceptions import NoReverseMatch, Resolver404

from trio_channels.auth import AuthMiddlewareStack
from trio_channels.exceptions import ConfigurationError, NoRouteFound
from trio_channels.generic.websocket import AsyncWebsocketConsumer
from trio_channels.middleware import BaseMiddleware
from trio_channels.routing import ChannelNameRouter, ProtocolTypeRouter, URLRouter, get_default_application
from trio_channels.security.websocket import OriginValidator
from trio_channels.testing import HttpCommunicator, ScriptedConnection


class Destination:
    """An application that keeps the scopes that reach it."""

    def __init__(self) -> None:
        self.scopes: list[dict[str, Any]] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await trio.lowlevel.checkpoint()
        self.scopes.append(scope)

    @property
    def url_route(self) -> dict[str, Any]:
        (scope,) = self.scopes
        return scope["url_route"]

    @property
    def reached(self) -> bool:
        return len(self.scopes) == 1


@pytest.fixture
def destination() -> Destination:
    return Destination()


async def route(router: Any, where: str, kind: str = "websocket", **more: Any) -> list[dict[str, Any]]:
    """Send one connection through a router; returns the messages to its client."""
    scope = {"type": kind, "path": where, "headers": [], **more}
    first = {"type": "websocket.connect"} if kind == "websocket" else {"type": "http.request"}
    with trio.fail_after(10):
        return await ScriptedConnection(scope, [first]).run(router)


DENIED = [{"type": "websocket.close"}]


# -- URLRouter --------------------------------------------------------------------------------------------------------


async def test_path_leads_to_its_application_with_its_arguments(destination: Destination) -> None:
    router = URLRouter([path("other/", Destination()), path("room/<int:number>/", destination)])
    await route(router, "/room/7/")
    assert destination.url_route == {"args": (), "kwargs": {"number": 7}}


async def test_unnamed_groups_of_a_re_path_are_positional_arguments(destination: Destination) -> None:
    await route(URLRouter([re_path(r"^room/(\w+)/(\d+)/$", destination)]), "/room/a/1/")
    assert destination.url_route == {"args": ("a", "1"), "kwargs": {}}


async def test_extra_arguments_of_a_route_are_keyword_arguments(destination: Destination) -> None:
    await route(URLRouter([path("<slug:name>/", destination, {"kind": "public"})]), "/lobby/")
    assert destination.url_route["kwargs"] == {"name": "lobby", "kind": "public"}


async def test_first_of_two_routes_that_match_is_taken(destination: Destination) -> None:
    second = Destination()
    await route(URLRouter([path("a/", destination), path("<slug:x>/", second)]), "/a/")
    assert destination.reached
    assert not second.scopes


async def test_custom_converter_that_refuses_its_text_is_no_match(destination: Destination) -> None:
    class Even:
        regex = "[0-9]+"

        def to_python(self, value: str) -> int:
            if int(value) % 2:
                raise ValueError(value)
            return int(value)

        def to_url(self, value: int) -> str:
            return str(value)

    register_converter(Even, "even_number_for_tests")
    router = URLRouter([path("<even_number_for_tests:n>/", destination)])
    assert await route(router, "/3/") == DENIED
    await route(router, "/4/")
    assert destination.url_route["kwargs"] == {"n": 4}


async def test_scope_is_not_changed_by_routing(destination: Destination) -> None:
    scope = {"type": "websocket", "path": "/a/", "headers": []}
    await ScriptedConnection(scope, []).run(URLRouter([path("a/", destination)]))
    assert scope == {"type": "websocket", "path": "/a/", "headers": []}
    assert destination.scopes[0]["path_remaining"] == ""


async def test_arguments_of_an_outer_and_a_nested_router_are_merged(destination: Destination) -> None:
    inner = URLRouter([re_path(r"^(\w+)/$", destination, {"depth": 2})])
    await route(URLRouter([re_path(r"^team/(\d+)/", inner, {"depth": 1, "outer": True})]), "/team/5/chat/")
    assert destination.url_route == {"args": ("5", "chat"), "kwargs": {"depth": 2, "outer": True}}


async def test_pattern_of_nested_routes_is_one_text(destination: Destination) -> None:
    router = URLRouter([path("team/<int:n>/", URLRouter([path("", include([re_path(r"^(\w+)/$", destination)]))]))])
    await route(router, "/team/5/chat/")
    assert destination.scopes[0]["url_pattern"] == r"team/<int:n>/^(\w+)/$"


async def test_pattern_is_never_one_that_the_scope_came_with(destination: Destination) -> None:
    scope = {"type": "websocket", "path": "/a/", "headers": [], "url_pattern": "forged/"}
    await ScriptedConnection(scope, []).run(URLRouter([path("a/", destination)]))
    assert destination.scopes[0]["url_pattern"] == "a/"


@pytest.mark.parametrize(
    "wrap",
    [
        pytest.param(AuthMiddlewareStack, id="AuthMiddlewareStack"),
        pytest.param(BaseMiddleware, id="BaseMiddleware"),
        pytest.param(lambda app: OriginValidator(app, ["*"]), id="OriginValidator"),
        pytest.param(lambda app: BaseMiddleware(OriginValidator(AuthMiddlewareStack(app), ["*"])), id="several"),
    ],
)
async def test_nested_router_is_seen_through_middleware(wrap: Any, destination: Destination) -> None:
    router = URLRouter([path("chat/", wrap(URLRouter([path("<slug:room>/", destination)])))])
    await route(router, "/chat/lobby/")
    assert destination.url_route["kwargs"] == {"room": "lobby"}


async def test_middleware_around_itself_does_not_hang_the_router() -> None:
    loop: Any = BaseMiddleware(None)  # type: ignore[arg-type]
    loop.inner = loop
    assert URLRouter([path("a/", loop)])


async def test_nested_router_without_a_route_lets_the_outer_one_go_on(destination: Destination) -> None:
    nested = URLRouter([path("here/", Destination())])
    await route(URLRouter([path("a/", nested), path("a/there/", destination)]), "/a/there/")
    assert destination.reached


async def test_include_works(destination: Destination) -> None:
    router = URLRouter([path("<slug:team>/", include([path("room/<int:n>/", destination)]), {"kind": "team"})])
    await route(router, "/red/room/3/")
    assert destination.url_route["kwargs"] == {"team": "red", "kind": "team", "n": 3}


async def test_include_without_a_match_lets_the_router_go_on(destination: Destination) -> None:
    router = URLRouter([path("a/", include([path("b/", Destination())])), path("a/c/", destination)])
    await route(router, "/a/c/")
    assert destination.reached


async def test_nested_router_within_an_include_within_a_nested_router(destination: Destination) -> None:
    innermost = URLRouter([path("<int:c>/", destination)])
    middle = URLRouter([path("<int:b>/", include([path("x/", AuthMiddlewareStack(innermost))]))])
    await route(URLRouter([path("<int:a>/", middle)]), "/1/2/x/3/")
    assert destination.url_route["kwargs"] == {"a": 1, "b": 2, "c": 3}


@pytest.mark.parametrize("error", [Resolver404({}), Http404(), NoReverseMatch(), NoRouteFound("mine")], ids=repr)
async def test_what_an_application_raises_is_not_taken_for_no_route(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    fallback = Destination()

    async def fails(scope: Any, receive: Any, send: Any) -> None:
        raise error

    with pytest.raises(type(error)) as raised:
        await route(URLRouter([path("a/", URLRouter([path("", fails)])), path("a/", fallback)]), "/a/")
    assert raised.value is error
    assert not fallback.scopes
    assert not caplog.records


@pytest.mark.parametrize("nested", [False, True], ids=["flat", "nested"])
async def test_websocket_without_a_route_is_denied_with_one_log_line(
    nested: bool, caplog: pytest.LogCaptureFixture
) -> None:
    app: Any = BaseMiddleware(URLRouter([path("<int:b>/", Destination())])) if nested else Destination()
    sent = await route(URLRouter([path("a/", app)]), "/a/missing/", client=("192.0.2.1", 4000))
    known = "'a/<int:b>/'" if nested else "'a/'"
    assert sent == DENIED
    (record,) = caplog.records
    assert (record.name, record.levelno) == ("trio_channels.routing", logging.WARNING)
    assert record.getMessage() == (
        f"no route for the path '/a/missing/' among {known}: denying the WebSocket of 192.0.2.1:4000"
    )
    assert record.exc_info is None


async def test_log_line_names_the_first_routes(caplog: pytest.LogCaptureFixture) -> None:
    nested = include([path(f"{number}/", Destination()) for number in range(9)])
    await route(URLRouter([re_path("^a/$", Destination()), path("b/", nested)]), "/b/1")
    assert "among '^a/$', 'b/0/', 'b/1/', 'b/2/', 'b/3/', 'b/4/', 'b/5/', 'b/6/', ...: denying" in caplog.messages[0]


async def test_websocket_that_left_before_its_denial_is_sent_nothing() -> None:
    scope = {"type": "websocket", "path": "/x/", "headers": []}
    sent = await ScriptedConnection(scope, [{"type": "websocket.disconnect", "code": 1006}]).run(URLRouter([]))
    assert sent == []


async def test_request_without_a_route_is_404_and_one_log_line(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with HttpCommunicator(URLRouter([]), "GET", "/missing") as client:
        response = await client.get_response()
    assert response["status"] == 404
    assert response["body"] == b"Not found\n"
    assert (b"content-length", b"10") in response["headers"]
    assert [record.getMessage() for record in caplog.records] == [
        "no route for the path '/missing' among none: answering 404 to ?"
    ]


@pytest.mark.parametrize("kind", ["http", "websocket"])
@pytest.mark.parametrize("router", [URLRouter([]), ProtocolTypeRouter({})], ids=repr)
async def test_missing_route_without_a_client_is_an_error(kind: str, router: Any) -> None:
    with pytest.raises(NoRouteFound, match=r"no (route|application) for the"):
        await router({"type": kind, "path": "/missing"}, None, None)


async def test_path_with_a_line_break_cannot_forge_a_log_line(caplog: pytest.LogCaptureFixture) -> None:
    await route(URLRouter([]), "/x\nERROR all is lost")
    assert "\n" not in caplog.messages[0]


@pytest.mark.parametrize(
    ("where", "root", "reached"),
    [
        ("/app/a/", "/app", True),
        ("/app/a/", "/app/", True),
        ("/a/", "/app", True),  # a server that strips the root path
        ("/apple/a/", "/app", False),
        ("/app", "/app", False),
        ("/a/", "", True),
    ],
)
async def test_root_path_is_not_part_of_what_is_matched(
    where: str, root: str, reached: bool, destination: Destination
) -> None:
    await route(URLRouter([path("a/", destination)]), where, root_path=root)
    assert destination.reached is reached


async def test_scope_without_a_path_is_an_error_that_says_so() -> None:
    with pytest.raises(NoRouteFound, match="got a 'channel' scope without one"):
        await URLRouter([])({"type": "channel", "channel": "x"}, None, None)  # type: ignore[arg-type]


@pytest.mark.parametrize("thing", ["a/", None, Destination()], ids=["str", "None", "application"])
def test_route_of_another_kind_is_refused_when_the_router_is_made(thing: Any) -> None:
    with pytest.raises(ConfigurationError, match="takes path\\(\\), re_path\\(\\) and include\\(\\); got"):
        URLRouter([thing])


def test_translated_route_is_refused_when_the_router_is_made() -> None:
    from django.conf.urls.i18n import i18n_patterns

    with pytest.raises(ConfigurationError):
        URLRouter(i18n_patterns(path("a/", Destination())))


def test_making_a_router_does_not_change_the_routes_it_was_given() -> None:
    nested = path("a/", URLRouter([]))
    assert isinstance(nested, URLPattern)
    URLRouter([nested])
    assert nested.pattern._is_endpoint is True


def test_router_shows_its_routes() -> None:
    assert repr(URLRouter([path("a/", Destination()), re_path("^b$", Destination())])) == "<URLRouter ['a/', '^b$']>"


# -- ProtocolTypeRouter -----------------------------------------------------------------------------------------------


async def test_type_of_a_scope_chooses_the_application(destination: Destination) -> None:
    await route(ProtocolTypeRouter({"http": Destination(), "websocket": destination}), "/")
    assert destination.reached


async def test_websocket_of_a_project_without_websockets_is_denied(caplog: pytest.LogCaptureFixture) -> None:
    assert await route(ProtocolTypeRouter({"http": Destination()}), "/") == DENIED
    assert len(caplog.records) == 1


async def test_request_of_a_project_without_http_is_answered_with_404() -> None:
    sent = await route(ProtocolTypeRouter({}), "/", "http")
    assert sent[0]["status"] == 404


async def test_type_that_nobody_serves_is_an_error() -> None:
    with pytest.raises(NoRouteFound, match="no application for the scope type 'mqtt'"):
        await ProtocolTypeRouter({})({"type": "mqtt"}, trio.sleep_forever, trio.sleep_forever)  # type: ignore[arg-type]


async def test_own_lifespan_application_replaces_the_built_in_one(destination: Destination) -> None:
    await ProtocolTypeRouter({"lifespan": destination})({"type": "lifespan"}, None, None)  # type: ignore[arg-type]
    assert destination.reached


def test_protocol_router_shows_its_types() -> None:
    assert repr(ProtocolTypeRouter({"http": Destination()})) == "<ProtocolTypeRouter for lifespan, http>"


# -- ChannelNameRouter ------------------------------------------------------------------------------------------------


async def test_channel_name_chooses_the_application(destination: Destination) -> None:
    router = ChannelNameRouter({"thumbnails": destination, "other": Destination()})
    await router({"type": "channel", "channel": "thumbnails"}, None, None)  # type: ignore[arg-type]
    assert destination.reached


async def test_unknown_channel_is_an_error_that_names_the_known_ones() -> None:
    with pytest.raises(NoRouteFound, match="no application for the channel 'b'; known: 'a'"):
        await ChannelNameRouter({"a": Destination()})({"type": "channel", "channel": "b"}, None, None)  # type: ignore[arg-type]


async def test_channel_router_refuses_scopes_without_a_channel() -> None:
    with pytest.raises(NoRouteFound, match="routes 'channel' scopes; got 'http'"):
        await ChannelNameRouter({})({"type": "http"}, None, None)  # type: ignore[arg-type]


def test_channel_router_shows_its_channels() -> None:
    assert repr(ChannelNameRouter({"a": Destination()})) == "<ChannelNameRouter for a>"


# -- the default application ------------------------------------------------------------------------------------------

application = ProtocolTypeRouter({})


def test_default_application_is_what_the_setting_names() -> None:
    with override_settings(ASGI_APPLICATION=f"{__name__}.application"):
        assert get_default_application() is application


@pytest.mark.parametrize("value", [None, "", "application", 3, application], ids=repr)
def test_setting_that_is_no_path_is_an_error(value: Any) -> None:
    with (
        override_settings(ASGI_APPLICATION=value),
        pytest.raises(ConfigurationError, match="must be a path such as"),
    ):
        get_default_application()


def test_setting_that_cannot_be_imported_keeps_its_cause() -> None:
    with (
        override_settings(ASGI_APPLICATION="no.such.application"),
        pytest.raises(ConfigurationError, match="cannot be imported: No module named 'no'") as raised,
    ):
        get_default_application()
    assert isinstance(raised.value.__cause__, ImportError)


@pytest.mark.parametrize(
    ("program", "error", "text"),
    [
        ("import no_such_module", ModuleNotFoundError, "No module named 'no_such_module'"),
        ("from trio_channels.routing import URLRuoter", ImportError, "cannot import name 'URLRuoter'"),
        ("from . import sibling", ImportError, "attempted relative import"),
        ("application = Aplication()", NameError, "name 'Aplication' is not defined"),
        ("import django.no_such_part", ModuleNotFoundError, "No module named 'django.no_such_part'"),
        ("raise ImportError", ImportError, ""),
        ("raise ModuleNotFoundError", ModuleNotFoundError, ""),
        ("application = (", SyntaxError, "was never closed"),
    ],
    ids=repr,
)
def test_error_inside_the_module_is_told_as_it_is(
    program: str, error: type[Exception], text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "site_with_a_typo.py").write_text(program)
    with override_settings(ASGI_APPLICATION="site_with_a_typo.application"), pytest.raises(error) as raised:
        get_default_application()
    assert type(raised.value) is error
    assert text in str(raised.value)
    assert raised.value.__cause__ is None


def test_module_without_the_application_is_said() -> None:
    with (
        override_settings(ASGI_APPLICATION="trio_channels.routing.aplication"),
        pytest.raises(ConfigurationError, match=r"the module 'trio_channels\.routing' has no 'aplication'"),
    ):
        get_default_application()


async def test_error_outside_consumers_names_its_connection() -> None:
    async def middleware(scope: Any, receive: Any, send: Any) -> None:
        raise LookupError("the database is away")

    router = ProtocolTypeRouter({"websocket": middleware, "lifespan": middleware})
    for server, notes in (
        (ScriptedConnection.websocket(path="/chat/"), ["on websocket /chat/"]),
        (ScriptedConnection({"type": "lifespan"}), []),
    ):
        with pytest.raises(LookupError) as caught:
            await server.run(router)
        assert getattr(caught.value, "__notes__", []) == notes


@pytest.mark.parametrize(
    "router",
    [
        lambda consumer: ProtocolTypeRouter({"websocket": consumer}),
        lambda consumer: URLRouter([path("", consumer)]),
        lambda consumer: URLRouter([path("", include([path("", consumer)]))]),
        lambda consumer: ChannelNameRouter({"thumbnails": consumer}),
    ],
    ids=["by type", "by path", "in an include", "by channel"],
)
def test_consumer_class_in_place_of_its_application_is_refused(router: Any) -> None:
    with pytest.raises(
        ConfigurationError, match=r"got the class AsyncWebsocketConsumer\. Route to AsyncWebsocketConsumer\.as_asgi\(\)"
    ):
        router(AsyncWebsocketConsumer)
