"""fastapi: sync and async endpoints run on Trio, beside Django. (test_starlette.py has the refusals of both.)"""

from __future__ import annotations

from .serving import at_once, site


async def test_endpoints_run_on_trio() -> None:
    async with site("starlette") as served, served.visitor() as visitor:
        paths = [f"/fast/{kind}?name={name}" for kind in ("sync", "async") for name in ("ada", "grace")]
        answers = await at_once(*(visitor.get(path) for path in paths))
        assert [answer.json()["hello"] for answer in answers] == ["ada", "grace", "ada", "grace"]
        assert (await visitor.get("/fast/sync")).status_code == 422
