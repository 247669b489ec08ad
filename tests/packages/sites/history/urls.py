"""Views that change a note, sync and async, and who has changed which."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse, JsonResponse
from django.urls import path

from ..common import login_as, meet, meet_in_thread
from .models import Note


def sync(request: HttpRequest) -> HttpResponse:
    meet_in_thread(request)
    note = Note.objects.create(text=request.GET["text"])
    meet_in_thread(request)
    note.save()
    return HttpResponse("ok")


async def asynchronous(request: HttpRequest) -> HttpResponse:
    await meet(request)
    note = await Note.objects.acreate(text=request.GET["text"])
    await meet(request)
    await note.asave()
    return HttpResponse("ok")


def changes(_request: HttpRequest) -> JsonResponse:
    records = Note.history.select_related("history_user").order_by("history_id")
    rows = [[record.text, record.history_user and record.history_user.username] for record in records]
    return JsonResponse({"changes": rows})


urlpatterns = [
    path("login/", login_as),
    path("sync/", sync),
    path("async/", asynchronous),
    path("changes/", changes),
]
