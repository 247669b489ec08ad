"""django-cors-headers: preflights and answers, for sync and async views."""

from __future__ import annotations

import pytest

from .serving import site

OPTIONS = {
    "apps": ["corsheaders"],
    "first": ["corsheaders.middleware.CorsMiddleware"],
    "CORS_ALLOWED_ORIGINS": ["https://friend.example"],
}


@pytest.mark.parametrize("kind", ["sync", "async"])
async def test_friends_may_and_strangers_may_not(kind: str) -> None:
    async with site("plain", **OPTIONS) as served, served.visitor() as visitor:
        friend, stranger = ({"Origin": f"https://{name}.example"} for name in ("friend", "stranger"))
        asked = {"Access-Control-Request-Method": "PUT"}

        preflight = await visitor.options(f"/{kind}/", headers=friend | asked)
        assert (preflight.status_code, preflight.content) == (200, b"")
        assert preflight.headers["access-control-allow-origin"] == friend["Origin"]
        assert "PUT" in preflight.headers["access-control-allow-methods"]
        answer = await visitor.get(f"/{kind}/", headers=friend)
        assert (answer.text, answer.headers["access-control-allow-origin"]) == (kind, friend["Origin"])

        for answer in (
            await visitor.options(f"/{kind}/", headers=stranger | asked),
            await visitor.get(f"/{kind}/", headers=stranger),
        ):
            assert "access-control-allow-origin" not in answer.headers
