"""strawberry-graphql-django: its sync view works; its async view needs asyncio as soon as two fields wait."""

from __future__ import annotations

import httpx

from .serving import ada_and_grace, at_once, site

OPTIONS = {"apps": ["strawberry_django"]}


async def ask(visitor: httpx.AsyncClient, path: str, query: str) -> dict[str, object]:
    return (await visitor.post(path, json={"query": query})).json()


async def test_sync_view() -> None:
    async with site("strawberry", **OPTIONS) as served, ada_and_grace(served) as (ada, grace):
        both = await at_once(*(ask(visitor, "/sync/?requests=2", "{ me }") for visitor in (ada, grace)))
        assert [answer["data"] for answer in both] == [{"me": "ada ada"}, {"me": "grace grace"}]
        renamed = await ask(ada, "/sync/", 'mutation { rename(username: "grace", new: "hedy") }')
        assert renamed == {"data": {"rename": 1}}
        people = await ask(ada, "/sync/", "{ people { username } }")
        assert people == {"data": {"people": [{"username": "ada"}, {"username": "hedy"}]}}


async def test_async_view_until_two_fields_wait() -> None:
    async with site("strawberry", **OPTIONS) as served, served.visitor() as visitor:
        assert await ask(visitor, "/async/", "{ one }") == {"data": {"one": "one"}}
        people = {"people": [{"username": "ada"}, {"username": "grace"}]}
        assert await ask(visitor, "/async/", "{ people { username } }") == {"data": people}
        for query in ("{ one two }", "{ loaded }"):
            answer = await ask(visitor, "/async/", query)
            assert answer["data"] is None
            assert "there is no current event loop of asyncio in a Trio task" in answer["errors"][0]["message"]
