"""Which calls of ``sync_to_async`` leave nothing on their thread."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from uuid import uuid4

import pytest
from django.apps import apps
from django.conf import settings
from django.contrib.auth.backends import ModelBackend
from django.contrib.auth.middleware import PersistentRemoteUserMiddleware, RemoteUserMiddleware
from django.contrib.auth.models import Permission, User
from django.contrib.sessions.backends.cache import SessionStore
from django.contrib.sessions.middleware import SessionMiddleware
from django.core import signals
from django.core.cache.backends.locmem import LocMemCache
from django.db import connection
from django.db.backends.signals import connection_created
from django.db.models import CharField, DateTimeField, Model, QuerySet, UUIDField, prefetch_related_objects
from django.db.models.signals import ModelSignal, post_init, post_save
from django.middleware.common import BrokenLinkEmailsMiddleware
from django.test import override_settings
from django.test.utils import isolate_apps
from django.utils import timezone

from trio_channels._threads.neutral import is_neutral, middleware_is_neutral, requests_are_neutral


class Filtering(QuerySet[Any]):
    def active(self) -> QuerySet[Any]:
        return self.filter(is_active=True)


class Routing(QuerySet[Any]):
    def _fetch_all(self) -> None:
        super()._fetch_all()  # type: ignore[misc]


class Proxy(User):
    class Meta:
        proxy = True
        app_label = "auth"

    def save(self, *args: Any, **kwargs: Any) -> None:
        super().save(*args, **kwargs)


class Loaded(User):
    class Meta:
        proxy = True
        app_label = "auth"

    @classmethod
    def from_db(cls, *args: Any) -> Any:
        return super().from_db(*args)


class Router:
    """Sends each query to the default database."""


class Cache(LocMemCache):
    pass


class Session(SessionStore):
    pass


NEUTRAL: dict[str, Callable[..., Any]] = {
    "read": User.objects.all().get,
    "iterate": User.objects.all()._fetch_all,  # type: ignore[attr-defined]
    "write": User.objects.all().create,
    "a query set with methods of its own": Filtering(User).count,
    "save": User().save,
    "read a model that overrides save": Proxy.objects.all().get,
    "create by a lookup": User.objects.all().get_or_create,
    "cache": LocMemCache("", {}).get,
    "session": SessionStore().load,
}
OTHERS: dict[str, Callable[..., Any]] = {
    "a function": lambda: None,
    "a function of Django's": connection.cursor,
    "raw SQL": User.objects.raw("SELECT 1")._fetch_all,  # type: ignore[attr-defined]
    "a query set that overrides one of Django's": Routing(User).get,
    "a model that overrides save": Proxy().save,
    "create an object of a model that overrides save": Proxy.objects.all().create,
    "read a model that overrides from_db": Loaded.objects.all().get,
    "an authentication backend": ModelBackend().authenticate,
    "a cache of the project's": Cache("", {}).get,
    "a session of the project's": Session().load,
}


@pytest.mark.parametrize("function", NEUTRAL.values(), ids=NEUTRAL)
def test_djangos_own_is_neutral(function: Callable[..., Any]) -> None:
    assert is_neutral(function)


@pytest.mark.parametrize("function", OTHERS.values(), ids=OTHERS)
def test_everything_else_is_not(function: Callable[..., Any]) -> None:
    assert not is_neutral(function)


@contextmanager
def connected(signal: Any) -> Iterator[None]:
    def receiver(**kwargs: Any) -> None: ...

    signal.connect(receiver)
    try:
        yield
    finally:
        signal.disconnect(receiver)


@pytest.mark.parametrize(
    ("signal", "read", "write"),
    [(post_save, True, False), (post_init, False, False), (connection_created, False, False)],
    ids=["post_save", "post_init", "connection_created"],
)
def test_receiver_makes_its_senders_not_neutral(signal: ModelSignal, read: bool, write: bool) -> None:
    with connected(signal):
        assert is_neutral(User.objects.all().get) is read
        assert is_neutral(User().save) is write
        assert is_neutral(SessionStore().save) is write
    assert is_neutral(User().save)


OTHER_ROWS = {
    "select_related": Permission.objects.select_related("content_type").get,
    "prefetch_related": User.objects.prefetch_related("groups")._fetch_all,
    "prefetch": prefetch_related_objects,
}


@pytest.mark.parametrize("function", OTHER_ROWS.values(), ids=OTHER_ROWS)
def test_rows_of_other_models_may_call_their_methods(
    function: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(apps, "get_models", lambda: [User, Proxy])
    assert is_neutral(function)
    with connected(post_init):
        assert not is_neutral(function)
    monkeypatch.setattr(apps, "get_models", lambda: [User, Loaded])
    assert not is_neutral(function)


@isolate_apps("tests")
def test_field_of_the_projects_makes_its_model_not_neutral() -> None:
    class Shout(CharField): ...  # type: ignore[type-arg]

    class Note(Model):
        text = Shout(max_length=10)

        class Meta:
            app_label = "tests"

    assert not is_neutral(Note().save)
    assert not is_neutral(Note._base_manager.all().get)


@isolate_apps("tests")
def test_default_of_the_projects_makes_writes_not_neutral() -> None:
    class Dated(Model):
        id = UUIDField(primary_key=True, default=uuid4)
        at = DateTimeField(default=timezone.now)

        class Meta:
            app_label = "tests"

    class Named(Model):
        name = CharField(default=lambda: "ada", max_length=10)

        class Meta:
            app_label = "tests"

    assert is_neutral(Dated().save), "Python's and Django's own functions"
    assert is_neutral(Named._base_manager.all().get)
    assert not is_neutral(Named().save)


@pytest.mark.parametrize("name", ["defaults", "create_defaults"])
def test_function_among_the_arguments_is_called(name: str) -> None:
    write = User.objects.all().update_or_create
    assert is_neutral(write, {name: {"date_joined": timezone.now}, "username": "ada"})
    assert not is_neutral(write, {name: {"username": lambda: "ada"}})
    assert not is_neutral(write, {"username": lambda: "ada"})
    assert is_neutral(User.objects.all().create, {name: None})


def test_receivers_are_looked_at_again_when_others_have_come() -> None:
    with connected(post_save):
        assert not is_neutral(User().save)
    assert is_neutral(User().save)
    with connected(post_save):
        assert not is_neutral(User().save)


def test_router_makes_the_orm_not_neutral() -> None:
    with override_settings(DATABASE_ROUTERS=[f"{__name__}.Router"]):
        assert not is_neutral(User.objects.all().get)


def test_engine_makes_everything_not_neutral(monkeypatch: pytest.MonkeyPatch) -> None:
    with override_settings(USE_TZ=True):  # a changed setting clears the caches, also after the block
        monkeypatch.setitem(settings.DATABASES["default"], "ENGINE", "project.engine")
        assert not requests_are_neutral()
        assert not is_neutral(User.objects.all().get)
        assert not is_neutral(LocMemCache("", {}).get), "one in the database is as much a cache"
        monkeypatch.undo()


def test_package_that_the_setting_names_is_neutral() -> None:
    with override_settings(TRIO_CHANNELS={"THREAD_NEUTRAL": [__name__]}, DATABASE_ROUTERS=[Router()]):
        assert is_neutral(Cache("", {}).get)
        assert is_neutral(Routing(User).get)
    assert not is_neutral(Cache("", {}).get)


def test_name_of_a_package_is_not_the_beginning_of_another() -> None:
    with override_settings(TRIO_CHANNELS={"THREAD_NEUTRAL": [__name__[:-1]]}):
        assert not is_neutral(Cache("", {}).get)


def test_djangos_middleware_is_neutral() -> None:
    assert middleware_is_neutral(SessionMiddleware)
    assert middleware_is_neutral(SessionMiddleware(lambda request: None))


@pytest.mark.parametrize("kind", [RemoteUserMiddleware, PersistentRemoteUserMiddleware, BrokenLinkEmailsMiddleware])
def test_djangos_middleware_that_calls_the_projects_code_is_not(kind: type) -> None:
    assert not middleware_is_neutral(kind)


def test_function_is_as_neutral_as_its_module() -> None:
    def middleware(request: Any) -> None: ...

    assert not middleware_is_neutral(middleware)
    with override_settings(TRIO_CHANNELS={"THREAD_NEUTRAL": [__name__]}):
        assert middleware_is_neutral(middleware)


def test_subclass_of_djangos_middleware_is_not() -> None:
    class Own(SessionMiddleware): ...

    assert not middleware_is_neutral(Own)


@pytest.mark.parametrize(
    "changed",
    [
        {"SESSION_ENGINE": "project.sessions"},
        {"SESSION_SERIALIZER": "project.Serializer"},
        {"DATABASE_ROUTERS": [f"{__name__}.Router"]},
        {"MESSAGE_STORAGE": "project.Messages"},
        {"CACHES": {"default": {"BACKEND": "project.Cache"}}},
        {"AUTHENTICATION_BACKENDS": ["project.Backend"]},
    ],
    ids=lambda changed: next(iter(changed)),
)
def test_request_that_the_project_stores_things_for_is_not(changed: dict[str, Any]) -> None:
    assert requests_are_neutral()
    with override_settings(**changed):
        assert not requests_are_neutral()


@pytest.mark.parametrize("signal", [signals.request_started, signals.request_finished, connection_created])
def test_receiver_makes_requests_not_neutral(signal: Any) -> None:
    with connected(signal):
        assert not requests_are_neutral()
