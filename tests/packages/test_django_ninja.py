"""django-ninja: sync and async operations, their authentication, and checked input."""

from __future__ import annotations

import pytest

from .serving import at_once, site


@pytest.mark.parametrize("kind", ["sync", "async"])
async def test_each_operation_has_its_own_user(kind: str) -> None:
    async with site("ninja") as served, served.visitor() as visitor:
        both = await at_once(
            *(
                visitor.get(f"/{kind}/?requests=2", headers={"Authorization": f"Bearer {name}"})
                for name in ("ada", "grace")
            )
        )
        assert [answer.json() for answer in both] == ["ada", "grace"]
        assert (await visitor.get(f"/{kind}/", headers={"Authorization": "Bearer nobody"})).status_code == 401


async def test_input_is_checked_and_described() -> None:
    async with site("ninja") as served, served.visitor() as visitor:
        assert (await visitor.post("/sum/", json={"a": 41})).json() == 42
        assert (await visitor.post("/sum/", json={"a": "x"})).status_code == 422
        assert (await visitor.post("/size/", files={"file": b"x" * 100_000})).json() == 100_000
        assert set((await visitor.get("/openapi.json")).json()["paths"]) >= {"/sum/", "/sync/"}
        assert "openapi.json" in (await visitor.get("/docs")).text
