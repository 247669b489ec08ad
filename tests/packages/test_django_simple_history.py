"""django-simple-history: each change has the user of its own request."""

from __future__ import annotations

import pytest

from .serving import ada_and_grace, at_once, site

OPTIONS = {
    "apps": ["simple_history", "tests.packages.sites.history"],
    "last": ["simple_history.middleware.HistoryRequestMiddleware"],
}


@pytest.mark.parametrize("kind", ["sync", "async"])
async def test_changes_have_the_user_of_their_request(kind: str) -> None:
    async with site("history.urls", **OPTIONS) as served, ada_and_grace(served) as (ada, grace), served.visitor() as no:
        visitors = {"ada": ada, "grace": grace, "nobody": no}
        for _ in range(5):
            await at_once(*(who.get(f"/{kind}/?requests=3&text={name}") for name, who in visitors.items()))
        changes = (await no.get("/changes/")).json()["changes"]
        assert len(changes) == 5 * 3 * 2
        users = {"ada": "ada", "grace": "grace", "nobody": None}
        assert {tuple(change) for change in changes} == set(users.items())
