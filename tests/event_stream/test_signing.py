"""Signed streams: which are admitted, and the template tag that makes their addresses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.auth.models import AnonymousUser, User
from django.core import signing
from django.template import Context, Engine
from django.test import override_settings
from django.urls import NoReverseMatch, path

from trio_channels._asgi.masking import SECRETS, mask_url
from trio_channels.auth import AuthMiddlewareStack
from trio_channels.event_stream import EventStream, sign_stream, stream_position
from trio_channels.event_stream import signing as ours
from trio_channels.exceptions import ConfigurationError, InvalidNameError
from trio_channels.testing import HttpCommunicator
from trio_channels.topics import broadcast

from .common import BOTH, as_view, kept, told, visit

urlpatterns = [path("events/", EventStream.as_view(signed=True), name="trio_stream")]

ADA, GRACE = User(pk=1, username="ada"), User(pk=2, username="grace")


def render(tag: str, **context: Any) -> str:
    engine = Engine(libraries={"trio_channels": "trio_channels.templatetags.trio_channels"})
    with override_settings(ROOT_URLCONF=__name__):
        return engine.from_string("{% load trio_channels %}" + tag).render(Context(context))


async def status(application: Any, query: str) -> int:
    async with visit(application, query) as client:
        found: int = (await client.get_response_start())["status"]
        return found


@pytest.mark.parametrize("serve", BOTH)
async def test_signed_stream_is_read(serve: Any) -> None:
    layer = kept()
    address = render('{% trio_stream "room:1" group %}', group="news")
    with serve(signed=True, channel_layer=layer) as application:
        async with visit(application, address.removeprefix("/events/")) as client:
            await client.receive_event()
            await broadcast("room:1", "hello", layer=layer)
            await layer.group_send("news", {"type": "item"})
            assert [(await client.receive_event()).event for _ in range(2)] == ["hello", "item"]


FORGERIES: dict[str, Callable[[str], str]] = {
    "none": lambda _signed: "",
    "empty": lambda _signed: "?stream=",
    "garbage": lambda _signed: "?stream=%ff:%00:\u20ac",
    "plain": lambda _signed: "?stream=news",
    "cut": lambda signed: f"?stream={signed[:-1]}",
    "changed": lambda signed: f"?stream=x{signed}",
    "other content": lambda signed: f"?stream={signing.b64_encode(b'{}').decode()}:{signed.partition(':')[2]}",
    "other salt": lambda _signed: f"?stream={signing.dumps({'names': ['news']}, salt='x')}",
    "no salt": lambda _signed: f"?stream={signing.dumps({'names': ['news']})}",
}


@pytest.mark.parametrize("serve", BOTH)
@pytest.mark.parametrize("forgery", FORGERIES)
async def test_forged_stream_is_refused(serve: Any, forgery: str) -> None:
    with serve(signed=True, groups=["news"], channel_layer=kept()) as application:
        assert await status(application, FORGERIES[forgery](sign_stream("news"))) == 403


async def test_stream_expires(monkeypatch: pytest.MonkeyPatch) -> None:
    now = ours.time.time()
    monkeypatch.setattr(ours.time, "time", lambda: now)
    signed = sign_stream("news", max_age=60)
    with as_view(signed=True, channel_layer=kept()) as application:
        for later, expected in ((59.9, 200), (60.0, 403)):
            monkeypatch.setattr(ours.time, "time", lambda later=later: now + later)
            assert await status(application, f"?stream={signed}") == expected


async def test_signed_stream_is_authorized_too() -> None:
    class Closed(EventStream):
        async def authorize(self, request: Any, name: str) -> bool:
            return name != "room:1"

    with as_view(Closed, signed=True, channel_layer=kept()) as application:
        assert await status(application, f"?stream={sign_stream('news')}") == 200
        assert await status(application, f"?stream={sign_stream('news', 'room:1')}") == 403


@pytest.mark.parametrize("in_view", [True, False], ids=["view", "application"])
async def test_stream_of_a_user_is_that_users(in_view: bool) -> None:
    signed = {name: sign_stream("news", user=user) for name, user in (("ada", ADA), ("nobody", AnonymousUser()))}
    cases = [("ada", ADA, 200), ("ada", GRACE, 403), ("ada", AnonymousUser(), 403)]
    cases += [("nobody", AnonymousUser(), 200), ("nobody", ADA, 403)]
    for name, visitor, expected in cases:
        if in_view:

            class Known(EventStream):
                def setup(self, request: Any, *args: Any, visitor: Any = visitor, **kwargs: Any) -> None:
                    super().setup(request, *args, **kwargs)

                    async def auser() -> Any:
                        return visitor

                    request.auser = auser

            with as_view(Known, signed=True, channel_layer=kept()) as application:
                assert await status(application, f"?stream={signed[name]}") == expected
        else:
            application = EventStream.as_asgi(signed=True, channel_layer=kept())
            client = visit(application, f"?stream={signed[name]}")
            client.scope["user"] = visitor
            async with client:
                assert (await client.get_response_start())["status"] == expected


@pytest.mark.django_db(transaction=True)
async def test_user_of_a_session_is_known() -> None:
    ada = await User.objects.acreate(username="ada")
    stack = AuthMiddlewareStack(EventStream.as_asgi(signed=True, channel_layer=kept()))
    client = HttpCommunicator(stack, "GET", f"/?stream={sign_stream('news', user=ada)}")
    await client.login(ada)
    async with client:
        assert told(await client.receive_event(30)) == ("stream.open", {"recovered": False})


async def test_stream_of_a_user_needs_users(caplog: pytest.LogCaptureFixture) -> None:
    query, expected = f"?stream={sign_stream('news', user=ADA)}", "add AuthenticationMiddleware to MIDDLEWARE"
    with as_view(signed=True, channel_layer=kept()) as application:
        assert await status(application, query) == 500
    assert expected in caplog.text
    with pytest.raises(ConfigurationError, match=expected):
        await status(EventStream.as_asgi(signed=True, channel_layer=kept()), query)


async def test_signed_stream_begins_at_its_page() -> None:
    layer = kept()
    since = await stream_position("news", layer=layer)
    address = render('{% trio_stream "news" since=since max_age=60 %}', since=since)
    await layer.group_send("news", {"type": "n"})
    with as_view(signed=True, channel_layer=layer) as application:
        async with visit(application, address.removeprefix("/events/")) as client:
            assert told(await client.receive_event()) == ("stream.open", {"recovered": True})
            assert (await client.receive_event()).event == "n"


def test_access_log_masks_the_signed_names() -> None:
    address = render('{% trio_stream "room:1" %}')
    assert mask_url(address, SECRETS) == "/events/?stream=***"


def test_address_is_that_of_the_route_or_the_path() -> None:
    assert render('{% trio_stream "a" %}').startswith("/events/?stream=")
    assert render('{% trio_stream "a" url="/other/" %}').startswith("/other/?stream=")
    with pytest.raises(NoReverseMatch):
        render('{% trio_stream "a" url="missing" %}')


def test_address_needs_no_escapes() -> None:
    address = render('{% trio_stream "room:<&>" user=user max_age=5 since="a&b" %}', user=ADA)
    assert "&" not in address.partition("?")[2]
    assert "%" not in address


@pytest.mark.parametrize("arguments", ["", "missing", '"a b"', '"a" user=missing', '"a" user=user'])
def test_wrong_arguments_are_refused(arguments: str) -> None:
    with pytest.raises((ConfigurationError, InvalidNameError)):
        render("{% trio_stream " + arguments + " %}", user=User())
