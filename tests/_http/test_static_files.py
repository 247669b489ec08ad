"""A site without anybody who serves its static files is told so, once."""

from __future__ import annotations

from typing import Any

import pytest
from django.http import HttpRequest, HttpResponse, HttpResponseNotFound
from django.test import override_settings
from django.urls import path

from trio_channels._http import static_files

from .common import fetch

STATIC = {
    "INSTALLED_APPS": ["django.contrib.staticfiles", "trio_channels"],
    "STATIC_URL": "static/",
    "ROOT_URLCONF": __name__,
    "MIDDLEWARE": [],
}


class WhiteNoiseMiddleware:
    """Has the name by which that package's middleware is known, and no file."""

    def __init__(self, get_response: Any) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> Any:
        return self.get_response(request)


whitenoise = WhiteNoiseMiddleware


def missing(request: HttpRequest) -> HttpResponse:
    return HttpResponseNotFound()


urlpatterns = [path("static/by-a-view.css", missing)]


@pytest.fixture(autouse=True)
def _not_warned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(static_files, "_has_warned", False)


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "trio_channels.asgi"]


async def test_missing_static_file_is_explained_once(caplog: pytest.LogCaptureFixture) -> None:
    with override_settings(**STATIC):
        for _ in range(2):
            assert (await fetch("/static/site.css"))["status"] == 404
    [message] = warnings(caplog)
    assert message.startswith("answering 404 to '/static/site.css': only runserver serves static files")
    assert "collectstatic" in message


@pytest.mark.parametrize(
    ("target", "changed"),
    [
        ("/other.css", {}),
        ("/static/by-a-view.css", {}),
        ("/static/site.css", {"INSTALLED_APPS": ["trio_channels"]}),
        ("/static/site.css", {"STATIC_URL": None}),
        ("/static/site.css", {"STATIC_URL": "/"}),
        ("/static/site.css", {"STATIC_URL": "https://cdn.example/static/"}),
        ("/static/site.css", {"MIDDLEWARE": [f"{__name__}.whitenoise"]}),
    ],
)
async def test_other_404_is_not_explained(
    target: str, changed: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    with override_settings(**{**STATIC, **changed}):
        assert (await fetch(target))["status"] == 404
    assert warnings(caplog) == []


@override_settings(**STATIC)
async def test_prefix_of_the_site_is_a_part_of_the_address(caplog: pytest.LogCaptureFixture) -> None:
    with override_settings(FORCE_SCRIPT_NAME="/app", STATIC_URL="/app/static/"):
        assert (await fetch("/app/static/site.css"))["status"] == 404
    assert len(warnings(caplog)) == 1
