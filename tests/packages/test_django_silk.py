"""django-silk: each request is recorded, with its own queries."""

from __future__ import annotations

import json

import pytest

from .serving import at_once, site

OPTIONS = {"apps": ["silk"], "first": ["silk.middleware.SilkyMiddleware"]}


@pytest.mark.parametrize("kind", ["sync", "async"])
async def test_each_request_is_recorded_with_its_queries(kind: str) -> None:
    async with site("silk", **OPTIONS) as served, served.visitor() as visitor:
        names = ("ada", "grace")
        pages = await at_once(*(visitor.get(f"/{kind}/?requests=2&user={name}") for name in names))
        assert [page.text for page in pages] == list(names)
        recorded = (await visitor.get("/recorded/")).json()
        assert {json.loads(asked)["user"] for asked in recorded} == set(names)
        for asked, queries in recorded.items():
            name = json.loads(asked)["user"]
            (query,) = (query for query in queries if "auth_user" in query)
            assert f"= {name}" in query or f"'{name}'" in query, query
        overview = await visitor.get("/silk/requests/")
        assert (overview.status_code, f"/{kind}/" in overview.text) == (200, True)
