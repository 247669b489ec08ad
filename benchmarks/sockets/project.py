"""The Django project that every server runs: its settings, a database with one user, and its views."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from django.http import HttpRequest, HttpResponse, StreamingHttpResponse

#: The environment variable with the folder of the database, and the one with the URL of Redis, if there is one.
FOLDER, REDIS = "BENCHMARK_FOLDER", "BENCHMARK_REDIS"
#: The environment variable with the class of the channel layer.
LAYER = "BENCHMARK_LAYER"
NAME = "ada"
#: The size of an upload and of a streamed response, in bytes, and of the parts of the latter.
LARGE, PART = 100 * 2**20, 64 * 2**10

APPLICATIONS = ("django.contrib.contenttypes", "django.contrib.auth", "django.contrib.sessions")

urlpatterns: list[Any] = []


def set_up(default_layer: str, *applications: str) -> None:
    """Configure Django, with these applications too; the layer is that of the environment, or the default."""
    import django
    from django.conf import settings

    layer: dict[str, Any] = {"BACKEND": os.environ.get(LAYER, default_layer)}
    if REDIS in os.environ:
        layer["CONFIG"] = {"hosts": [os.environ[REDIS]], "capacity": 2_000}
    settings.configure(
        ALLOWED_HOSTS=["localhost"],
        SECRET_KEY="only for measuring",
        ROOT_URLCONF=__name__,
        INSTALLED_APPS=[*applications, *APPLICATIONS],
        MIDDLEWARE=[
            "django.middleware.security.SecurityMiddleware",
            "django.middleware.common.CommonMiddleware",
        ],
        CHANNEL_LAYERS={"default": layer},
        DATABASES={
            "default": {
                "ENGINE": "django.db.backends.sqlite3",
                "NAME": str(Path(os.environ[FOLDER]) / "db.sqlite3"),
                "CONN_MAX_AGE": None,
            }
        },
        DATA_UPLOAD_MAX_MEMORY_SIZE=None,
    )
    django.setup(set_prefix=False)


def make_database() -> str:
    """Make the tables, a user and a session of that user; returns the session's cookie."""
    from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY
    from django.contrib.auth.models import User
    from django.contrib.contenttypes.models import ContentType
    from django.contrib.sessions.backends.db import SessionStore
    from django.contrib.sessions.models import Session
    from django.db import connection

    with connection.schema_editor() as editor:
        for model in (ContentType, User, Session):
            editor.create_model(model)
    user = User.objects.create(username=NAME)
    session = SessionStore()
    session[SESSION_KEY] = str(user.pk)
    session[BACKEND_SESSION_KEY] = "django.contrib.auth.backends.ModelBackend"
    session[HASH_SESSION_KEY] = user.get_session_auth_hash()
    session.create()
    connection.close()
    return f"sessionid={session.session_key}"


def make_views(sleep: Callable[[float], Awaitable[None]]) -> None:
    """Make the views: trivial, one with a query, an async one, a streamed response and an upload."""
    from django.contrib.auth.models import User
    from django.http import HttpResponse, StreamingHttpResponse
    from django.urls import path

    def trivial(request: HttpRequest) -> HttpResponse:  # noqa: ARG001
        return HttpResponse("the answer")

    def query(request: HttpRequest) -> HttpResponse:  # noqa: ARG001
        return HttpResponse(f"the {User.objects.get(pk=1).username}")

    async def asynchronous(request: HttpRequest) -> HttpResponse:  # noqa: ARG001
        await sleep(0)
        return HttpResponse("the answer")

    def stream(request: HttpRequest) -> StreamingHttpResponse:  # noqa: ARG001
        part = bytes(PART)
        return StreamingHttpResponse((part for _ in range(LARGE // PART)), headers={"content-length": str(LARGE)})

    def upload(request: HttpRequest) -> HttpResponse:
        size = 0
        while part := request.read(PART):
            size += len(part)
        return HttpResponse(str(size))

    urlpatterns[:] = [
        *(path("trivial/", trivial), path("query/", query), path("async/", asynchronous)),
        *(path("stream/", stream), path("upload/", upload)),
    ]
