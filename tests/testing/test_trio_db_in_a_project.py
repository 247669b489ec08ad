"""``trio_db`` as a project uses it: pytest sessions of their own, with pytest-django's ``db``, on every database."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ..postgres import PostgresServer
from .test_pytest_plugin import INSTALLED

pytestmark = pytest.mark.slow

pytest_plugins = ["pytester"]

ROOT = Path(__file__).parents[2]

SETTINGS = """
SECRET_KEY = "only for tests"
ALLOWED_HOSTS = ["testserver"]
USE_TZ = True
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
INSTALLED_APPS = ["django.contrib.auth", "django.contrib.contenttypes", "trio_channels"]
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
ROOT_URLCONF = "test_project"
"""

TESTS = """
import pytest
import trio
from django.contrib.auth.models import User
from django.db import connection, transaction
from django.http import HttpResponse
from django.urls import path

from trio_channels.db import aatomic, database_sync_to_async, pinned
from trio_channels.generic.websocket import WebsocketConsumer
from trio_channels._http.handler import DjangoHandler
from trio_channels.testing import HttpCommunicator, WebsocketCommunicator


def names():
    return sorted(User.objects.values_list("username", flat=True))


urlpatterns = [path("names/", lambda request: HttpResponse(" ".join(names())))]


class Names(WebsocketConsumer):
    def connect(self):
        User.objects.create_user("grace")
        self.accept()
        self.send(text_data=" ".join(names()))


@pytest.fixture
def ada(db):
    return User.objects.create_user("ada")


def test_database_is_the_one_asked_for(db):
    assert connection.vendor == VENDOR
    assert connection.in_atomic_block


async def test_consumer_sees_the_tests_rows_and_the_test_sees_its(ada, trio_db):
    async with WebsocketCommunicator(Names.as_asgi(), "/") as client:
        assert await client.connect(timeout=30) == (True, None)
        assert await client.receive_from(timeout=30) == "ada grace"
    assert await database_sync_to_async(names)() == ["ada", "grace"]


async def test_requests_and_the_asynchronous_orm_too(ada, trio_db):
    for _ in range(2):
        async with HttpCommunicator(DjangoHandler(), "GET", "/names/") as client:
            assert (await client.get_response(timeout=30))["body"] == b"ada"
    assert [user.username async for user in User.objects.all()] == ["ada"]


async def test_inner_transaction_is_rolled_back_alone(ada, trio_db):
    with pytest.raises(LookupError):
        async with aatomic():
            await User.objects.acreate(username="grace")
            raise LookupError
    async with aatomic():
        await User.objects.acreate(username="mary")
    assert await database_sync_to_async(names)() == ["ada", "mary"]


async def test_inner_database_error_leaves_the_outer_block_usable(ada, trio_db):
    from django.db import IntegrityError

    with pytest.raises(IntegrityError):
        async with aatomic():
            await User.objects.acreate(username="ada")
    assert await database_sync_to_async(names)() == ["ada"]


@pytest.mark.xfail(raises=ZeroDivisionError, strict=True)
async def test_test_that_fails_leaves_nothing_either(trio_db):
    await User.objects.acreate(username="left over")
    1 / 0


@pytest.mark.parametrize("turn", [1, 2])
async def test_nothing_is_left_of_the_tests_before(trio_db, turn):
    assert await database_sync_to_async(names)() == []
    await User.objects.acreate(username="grace")


def test_nor_for_a_synchronous_test(db):
    assert names() == []


@pytest.mark.django_db(transaction=True)
def test_nor_is_anything_committed():
    assert names() == []

"""

HELD = """
import pytest
import trio
from django.contrib.auth.models import User

from trio_channels.db import pinned


@pytest.mark.time_limit(2)
async def test_held(trio_db):
    done = trio.Event()

    async def other():
        await User.objects.acount()
        done.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(other)
        async with pinned():
            await done.wait()
"""


IN_MEMORY = {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}


@pytest.fixture
def run(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Callable[..., pytest.RunResult]:
    """Run tests in a project with that database, which pytest-django makes by itself."""

    def run(database: dict[str, Any], tests: str, **others: dict[str, Any]) -> pytest.RunResult:
        monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
        monkeypatch.delenv("DJANGO_SETTINGS_MODULE")
        pytester.makeini(
            "[pytest]\ntrio_mode = true\nfilterwarnings = error\npythonpath = .\n"
            "DJANGO_SETTINGS_MODULE = project_settings\n"
        )
        databases = {"default": database, **others}
        pytester.makepyfile(project_settings=f"{SETTINGS}\nDATABASES = {databases!r}\n", test_project=tests)
        # These sessions do not need these plugins, which take half of their time.
        without = [part for name in ("hypothesispytest", "xdist", "pytest_cov") for part in ("-p", f"no:{name}")]
        plugin = [] if INSTALLED else ["-p", "trio_channels.testing.pytest_plugin"]
        return pytester.runpytest_subprocess(*without, *plugin, timeout=120)

    return run


def test_in_a_project_on_sqlite_trio_db_is_the_transaction_of_db(run: Any) -> None:
    result = run(IN_MEMORY, TESTS.replace("VENDOR", "'sqlite'"))
    result.assert_outcomes(passed=9, xfailed=1)


@pytest.mark.faults  # for its length alone
def test_in_a_project_on_sqlite_in_a_file_too(run: Any, tmp_path: Path) -> None:
    name = str(tmp_path / "tests.sqlite3")
    result = run(IN_MEMORY | {"NAME": name, "TEST": {"NAME": name}}, TESTS.replace("VENDOR", "'sqlite'"))
    result.assert_outcomes(passed=9, xfailed=1)


def test_in_a_project_on_postgresql_trio_db_is_the_transaction_of_db(run: Any, postgres: PostgresServer) -> None:
    database = postgres.settings("postgres") | {"TEST": {"NAME": f"of_a_project_{os.getpid()}"}}
    result = run(database, TESTS.replace("VENDOR", "'postgresql'"))
    result.assert_outcomes(passed=9, xfailed=1)


@pytest.mark.faults  # for its length alone
def test_holder_of_the_only_thread_is_ended_by_the_limit(run: Any) -> None:
    result = run(IN_MEMORY, HELD)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        [
            "*test_held was cancelled: still running after 2 seconds",
            "*django_db(transaction=True)*",
            "*.other at *waiting.py:*",
        ]
    )
