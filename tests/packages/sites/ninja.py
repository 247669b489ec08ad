"""An API with sync and async operations."""

from __future__ import annotations

from django.contrib.auth.models import User
from django.http import HttpRequest
from django.urls import path
from ninja import File, NinjaAPI, Schema
from ninja.files import UploadedFile
from ninja.security import HttpBearer

from .common import meet, meet_in_thread


class Bearer(HttpBearer):
    def authenticate(self, _request: HttpRequest, token: str) -> User | None:
        return User.objects.filter(username=token).first()


class AsyncBearer(HttpBearer):
    async def authenticate(self, _request: HttpRequest, token: str) -> User | None:
        return await User.objects.filter(username=token).afirst()


class Sum(Schema):
    a: int
    b: int = 1


api = NinjaAPI()


@api.get("/sync/", auth=Bearer())
def sync(request: HttpRequest) -> str:
    meet_in_thread(request)
    return request.auth.username


@api.get("/async/", auth=AsyncBearer())
async def asynchronous(request: HttpRequest) -> str:
    await meet(request)
    found = await User.objects.aget(pk=request.auth.pk)
    await meet(request)
    return found.username


@api.post("/sum/")
async def add(request: HttpRequest, numbers: Sum) -> int:
    return numbers.a + numbers.b


@api.post("/size/")
async def size(request: HttpRequest, file: File[UploadedFile]) -> int:
    return len(file.read())


urlpatterns = [path("", api.urls)]
