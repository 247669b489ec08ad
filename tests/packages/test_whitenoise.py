"""whitenoise serves static files: collected, found anew each time, and found once."""

from __future__ import annotations

from pathlib import Path

import pytest

from .serving import at_once, site

CSS = Path(__file__).parent / "sites" / "static" / "site" / "site.css"
MIDDLEWARE = ["whitenoise.middleware.WhiteNoiseMiddleware"]
FOUND = {"apps": ["whitenoise.runserver_nostatic", "tests.packages.sites"], "first": MIDDLEWARE}


@pytest.mark.parametrize("autorefresh", [False, True])
async def test_files_of_the_finders(autorefresh: bool) -> None:
    options = {"WHITENOISE_USE_FINDERS": True, "WHITENOISE_AUTOREFRESH": autorefresh}
    async with site("whitenoise", **FOUND, **options) as served, served.visitor() as visitor:
        page, css, missing = await at_once(
            visitor.get("/"), visitor.get("/static/site/site.css"), visitor.get("/static/site/no.css")
        )
        assert (page.text, missing.status_code) == ("/static/site/site.css", 404)
        assert css.content == CSS.read_bytes()
        assert css.headers["content-type"] == 'text/css; charset="utf-8"'


async def test_collected_files_are_compressed_and_immutable(tmp_path: Path) -> None:
    options = {
        "STATIC_ROOT": str(tmp_path),
        "STORAGES": {
            "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
            "staticfiles": {"BACKEND": "whitenoise.storage.CompressedManifestStaticFilesStorage"},
        },
        "FIRST_COMMANDS": [["collectstatic", "--no-input", "--verbosity=0"]],
    }
    async with site("whitenoise", **FOUND, **options) as served, served.visitor() as visitor:
        address = (await visitor.get("/")).text
        first, *others = await at_once(*(visitor.get(address) for _ in range(20)))
        assert {response.content for response in (first, *others)} == {CSS.read_bytes()}
        assert (first.headers["content-encoding"], "immutable" in first.headers["cache-control"]) == ("gzip", True)

        plain = {"Accept-Encoding": "identity"}
        head, part, unchanged = await at_once(
            visitor.head(address, headers=plain),
            visitor.get(address, headers=plain | {"Range": "bytes=5-12"}),
            visitor.get(address, headers=plain | {"If-None-Match": first.headers["etag"]}),
        )
        assert (head.content, head.headers["content-length"]) == (b"", str(CSS.stat().st_size))
        assert (part.status_code, part.content) == (206, CSS.read_bytes()[5:13])
        assert (unchanged.status_code, unchanged.content) == (304, b"")
