"""django-axes: too many failures lock the client's address out; logins and logouts are noted, in consumers too."""

from __future__ import annotations

import httpx
import pytest

from .serving import at_once, site

OPTIONS = {
    "apps": ["axes"],
    "last": ["axes.middleware.AxesMiddleware"],
    "AUTHENTICATION_BACKENDS": ["axes.backends.AxesStandaloneBackend", "django.contrib.auth.backends.ModelBackend"],
    "AXES_FAILURE_LIMIT": 3,
}


@pytest.mark.parametrize("kind", ["sync", "async"])
async def test_failures_lock_an_address_out(kind: str) -> None:
    elsewhere = httpx.AsyncHTTPTransport(local_address="127.0.0.2")

    async def try_as(client: httpx.AsyncClient, password: str) -> int:
        answer = await client.post(f"/{kind}/", data={"username": "ada", "password": password})
        return answer.status_code

    async with (
        site("axes", **OPTIONS) as served,
        served.visitor() as visitor,
        served.visitor(transport=elsewhere) as other,
    ):
        assert await try_as(visitor, "a good password") == 200
        wrong = [await try_as(visitor, "wrong") for _ in range(3)]
        assert wrong == [401, 401, 429]
        locked = await at_once(*(try_as(visitor, "a good password") for _ in range(5)))
        assert locked == [429] * 5

        assert await try_as(other, "wrong") == 401
        assert await try_as(other, "a good password") == 200
        assert (await other.get("/attempts/")).json()["127.0.0.1"] == 3 + 5


@pytest.mark.parametrize("kind", ["sync", "async"])
async def test_logins_of_consumers_are_noted(kind: str) -> None:
    agent = [(b"user-agent", b"Analytical Engine")]
    async with site("axes", **OPTIONS) as served, served.visitor() as visitor:
        async with (
            served.websocket(f"/{kind}/", extra_headers=agent) as ada,
            served.websocket(f"/{kind}/", extra_headers=agent) as grace,
        ):
            for client, name in ((ada, "ada"), (grace, "grace"), (ada, "")):
                await client.send_message(name)
                assert await client.get_message() == name
        accesses = (await visitor.get("/accesses/")).json()["accesses"]
    assert accesses == [
        ["ada", "127.0.0.1", "Analytical Engine", f"/{kind}/", True],
        ["grace", "127.0.0.1", "Analytical Engine", f"/{kind}/", False],
    ]
