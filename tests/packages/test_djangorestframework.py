"""Django REST framework: tokens, permissions, throttles, view sets and its browsable pages."""

from __future__ import annotations

from .serving import at_once, site

OPTIONS = {
    "apps": ["rest_framework", "rest_framework.authtoken"],
    "REST_FRAMEWORK": {
        "DEFAULT_AUTHENTICATION_CLASSES": [
            "rest_framework.authentication.TokenAuthentication",
            "rest_framework.authentication.SessionAuthentication",
        ]
    },
}


async def test_tokens_throttles_and_view_sets() -> None:
    async with site("rest_framework", **OPTIONS) as served, served.visitor() as visitor:
        tokens = {}
        for name in ("ada", "grace"):
            given = await visitor.post("/token/", data={"username": name, "password": "a good password"})
            tokens[name] = {"Authorization": f"Token {given.json()['token']}"}

        both = await at_once(*(visitor.get("/me/?requests=2", headers=token) for token in tokens.values()))
        assert [answer.json() for answer in both] == [["ada", "ada"], ["grace", "grace"]]
        assert (await visitor.get("/me/")).status_code == 401

        seldom = await at_once(*(visitor.get("/seldom/", headers=tokens["ada"]) for _ in range(3)))
        assert [answer.status_code for answer in seldom] == [200, 200, 200]
        assert (await visitor.get("/seldom/", headers=tokens["ada"])).status_code == 429
        assert (await visitor.get("/seldom/", headers=tokens["grace"])).status_code == 200

        new = {"username": "hedy", "email": "hedy@example.org"}
        assert (await visitor.post("/users/", json=new)).status_code == 401
        assert (await visitor.post("/users/", json=new | {"email": "no"}, headers=tokens["ada"])).status_code == 400
        assert (await visitor.post("/users/", json=new, headers=tokens["ada"])).status_code == 201
        assert [user["username"] for user in (await visitor.get("/users/")).json()] == ["ada", "grace", "hedy"]
        page = await visitor.get("/users/", headers={"Accept": "text/html"})
        assert "Django REST framework" in page.text
        assert (await visitor.get("/beside/")).json() == {"tokens": 2}
