"""django-allauth: sign up, confirm the address by mail, log in; its receiver notes the login of a consumer."""

from __future__ import annotations

import re
from pathlib import Path

import httpx
import pytest

from .serving import Site, at_once, site

OPTIONS = {
    "apps": ["allauth", "allauth.account", "allauth.usersessions"],
    "last": ["allauth.account.middleware.AccountMiddleware"],
    "AUTHENTICATION_BACKENDS": ["allauth.account.auth_backends.AuthenticationBackend"],
    "ACCOUNT_EMAIL_VERIFICATION": "mandatory",
    "ACCOUNT_SIGNUP_FIELDS": ["username*", "email*", "password1*"],
    "LOGIN_REDIRECT_URL": "/async/",
    "EMAIL_BACKEND": "django.core.mail.backends.filebased.EmailBackend",
}


async def fill(visitor: httpx.AsyncClient, path: str, **fields: str) -> httpx.Response:
    """Open a page with a form, and send it; the page after it."""
    token = re.search(r'csrfmiddlewaretoken" value="(\w+)"', (await visitor.get(path)).text)
    return await visitor.post(path, data={"csrfmiddlewaretoken": token[1], **fields}, headers={"Referer": path})


def mail_to(mails: Path, name: str) -> str:
    (text,) = (mail for file in mails.iterdir() if f"To: {name}@" in (mail := file.read_text()))
    return text


async def join(served: Site, visitor: httpx.AsyncClient, mails: Path, name: str) -> None:
    account = {"username": name, "password1": "quite a good one"}
    page = await fill(visitor, "/accounts/signup/", email=f"{name}@example.org", **account)
    assert page.url.path == "/accounts/confirm-email/"
    link = re.search(rf"{served.url}(/accounts/confirm-email/\S+/)", mail_to(mails, name))
    await fill(visitor, link[1])
    await visitor.post("/accounts/logout/")
    page = await fill(visitor, "/accounts/login/", login=name, password="quite a good one")
    assert (page.url.path, page.text) == ("/async/", name)


@pytest.mark.parametrize("kind", ["sync", "async"])
async def test_members_join_and_are_told_apart(tmp_path: Path, kind: str) -> None:
    options = OPTIONS | {"EMAIL_FILE_PATH": str(tmp_path)}
    async with (
        site("allauth", **options) as served,
        served.visitor(follow_redirects=True) as hedy,
        served.visitor(follow_redirects=True) as mary,
        served.visitor() as stranger,
    ):
        await join(served, hedy, tmp_path, "hedy")
        await join(served, mary, tmp_path, "mary")
        both = await at_once(*(visitor.get(f"/{kind}/?requests=2") for visitor in (hedy, mary)))
        assert [page.text for page in both] == ["hedy", "mary"]
        assert (await stranger.get(f"/{kind}/")).headers["location"].startswith("/accounts/login/")
        assert (await stranger.get("/accounts/")).headers["location"] == "/accounts/login/"


async def test_login_of_a_consumer_is_noted() -> None:
    async with site("allauth", **OPTIONS) as served, served.visitor() as visitor:
        for name in ("ada", "grace"):
            agent = [(b"user-agent", f"the browser of {name}".encode())]
            async with served.websocket("/login/", extra_headers=agent) as client:
                await client.send_message(name)
                assert await client.get_message() == name
        devices = (await visitor.get("/devices/")).json()["devices"]
    assert devices == [[name, "127.0.0.1", f"the browser of {name}"] for name in ("ada", "grace")]
