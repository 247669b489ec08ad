"""A page that reloads itself, with the events as the package has them."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse
from django.urls import include, path


async def page(_request: HttpRequest) -> HttpResponse:
    return HttpResponse("<html><body></body></html>")


urlpatterns = [path("", page), path("__reload__/", include("django_browser_reload.urls"))]
