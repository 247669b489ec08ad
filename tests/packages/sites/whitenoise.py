"""One async page; everything else is static."""

from django.http import HttpRequest, HttpResponse
from django.templatetags.static import static
from django.urls import path


async def page(_request: HttpRequest) -> HttpResponse:
    return HttpResponse(static("site/site.css"))


urlpatterns = [path("", page)]
