"""starlette: an application runs on Trio, beside Django; one whose start needs asyncio is refused."""

from __future__ import annotations

import pytest

from ..process import program
from .serving import at_once, serve_settings, site

STARS = "tests.packages.sites.starlette"
#: Each way to run: its arguments.
WAYS = {
    "serve": ("-m", "trio_channels", "serve", "--bind=127.0.0.1:0"),
    "hypercorn": ("-m", "hypercorn", "--worker-class=trio", "--bind=127.0.0.1:0", "--workers=0"),
    "runserver": ("-m", "django", "runserver", "0", "--noreload", "--skip-checks"),
}


async def test_runs_on_trio_beside_django() -> None:
    async with site("starlette") as served, served.visitor() as visitor:
        ada, grace, django = await at_once(
            visitor.get("/star/hello?name=ada"), visitor.get("/star/hello?name=grace"), visitor.get("/async/")
        )
        assert (ada.text, grace.text) == ("hello ada, started: True", "hello grace, started: True")
        assert django.text == "async"
        async with served.websocket("/star/echo") as client:
            await client.send_message("hello")
            assert await client.get_message() == "hello"


async def test_asyncio_in_an_endpoint_is_noted() -> None:
    async with site("starlette") as served, served.visitor() as visitor:
        assert (await visitor.get("/star/sleep")).status_code == 500
        await served.logged(r"asyncio\.sleep does not work in a Trio task: use trio\.sleep\(seconds\)")


@pytest.mark.parametrize("name", ["starlette_on_asyncio", "fastapi_on_asyncio"])
@pytest.mark.parametrize("way", WAYS)
async def test_lifespan_that_needs_asyncio_is_refused(way: str, name: str) -> None:
    with serve_settings("starlette", ASGI_APPLICATION=f"{STARS}.{name}") as environment:
        arguments = WAYS[way] if way == "runserver" else (*WAYS[way], f"{STARS}:{name}")
        async with program(*arguments, **environment) as process:
            assert await process.ends() == (1 if way == "runserver" else 3), process.text
    assert "asyncio.create_task does not work in a Trio task: use self.start_soon(function)" in process.text
    assert "Running on" not in process.text
