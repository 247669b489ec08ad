"""django-htmx: a view knows that htmx asks, and for which element."""

from __future__ import annotations

import pytest

from .serving import at_once, site

OPTIONS = {"apps": ["django_htmx"], "last": ["django_htmx.middleware.HtmxMiddleware"]}


@pytest.mark.parametrize("kind", ["sync", "async"])
async def test_htmx_gets_a_part(kind: str) -> None:
    async with site("htmx", **OPTIONS) as served, served.visitor() as visitor:
        address = f"/{kind}/?requests=3"
        whole, one, two = await at_once(
            visitor.get(address),
            *(visitor.get(address, headers={"HX-Request": "true", "HX-Target": target}) for target in ("one", "two")),
        )
        assert (whole.text, one.text, two.text) == ("whole", "part for one", "part for two")
        assert (one.headers["hx-trigger"], "hx-trigger" in whole.headers) == ('{"loaded": {}}', False)
