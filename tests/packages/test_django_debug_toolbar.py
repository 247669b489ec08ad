"""django-debug-toolbar: in the page, with the queries of its own request."""

from __future__ import annotations

import re

import pytest

from .serving import at_once, site

OPTIONS = {
    "apps": ["debug_toolbar"],
    "first": ["debug_toolbar.middleware.DebugToolbarMiddleware"],
    "DEBUG": True,
    "INTERNAL_IPS": ["127.0.0.1"],
}


@pytest.mark.parametrize("kind", ["sync", "async"])
async def test_panels_show_their_own_request(kind: str) -> None:
    async with site("debug_toolbar", **OPTIONS) as served, served.visitor() as visitor:
        names = ("ada", "grace")
        pages = await at_once(*(visitor.get(f"/{kind}/?requests=2&user={name}") for name in names))
        for page, name in zip(pages, names, strict=True):
            assert f"<p>{name}</p>" in page.text
            request = re.search(r'data-request-id="(\w+)"', page.text)[1]
            queries = await visitor.get(
                "/__debug__/render_panel/", params={"request_id": request, "panel_id": "SQLPanel"}
            )
            # As words: the panel has random identifiers in hexadecimal digits, too.
            found = set(re.findall(r"\b(?:ada|grace)\b", queries.json()["content"]))
            assert found == {name}, queries.text
        history = await visitor.get(
            "/__debug__/render_panel/", params={"request_id": request, "panel_id": "HistoryPanel"}
        )
        assert history.json()["content"].count(f"/{kind}/") >= 2
