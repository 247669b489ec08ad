"""django-csp: the nonce of a page is that of its header, and no other page's."""

from __future__ import annotations

import re

import pytest

from .serving import at_once, site

OPTIONS = {
    "apps": ["csp"],
    "first": ["csp.middleware.CSPMiddleware"],
    "CONTENT_SECURITY_POLICY": {"DIRECTIVES": {"script-src": ["'self'", {"import": "csp.constants.NONCE"}]}},
}


@pytest.mark.parametrize("kind", ["sync", "async"])
async def test_nonce_is_in_page_and_header(kind: str) -> None:
    async with site("csp", **OPTIONS) as served, served.visitor() as visitor:
        pages = await at_once(*(visitor.get(f"/{kind}/?requests=5") for _ in range(5)))
        nonces = {re.search('nonce="([^"]+)"', page.text)[1] for page in pages}
        assert len(nonces) == 5
        for page in pages:
            policy = page.headers["content-security-policy"]
            nonce = re.search('nonce="([^"]+)"', page.text)[1]
            assert f"'nonce-{nonce}'" in policy
