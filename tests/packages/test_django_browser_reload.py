"""django-browser-reload: its events need asyncio; a view of one's own takes their place."""

from __future__ import annotations

from .serving import site

OPTIONS = {
    "apps": ["django_browser_reload"],
    "last": ["django_browser_reload.middleware.BrowserReloadMiddleware"],
    "DEBUG": True,
}


async def test_page_has_the_script() -> None:
    async with site("browser_reload", **OPTIONS) as served, served.visitor() as visitor:
        assert "django-browser-reload/reload-listener.js" in (await visitor.get("/")).text


async def test_its_own_events_need_asyncio() -> None:
    async with site("browser_reload", **OPTIONS) as served:
        async with served.stream("/__reload__/events/") as events:
            await events.end()
        assert "data:" not in events.text
        await served.logged("no running event loop")


async def test_events_on_trio_reload_the_page() -> None:
    async with (
        site("browser_reload_remedy", **OPTIONS) as served,
        served.visitor() as visitor,
        served.stream("/__reload__/events/") as events,
    ):
        await events.until('"type": "ping", "versionId": "')
        await visitor.get("/change/")
        await events.until('"type": "reload"')
