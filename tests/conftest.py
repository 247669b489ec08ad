"""Databases for tests whose code runs on worker threads: real ones, of every kind that is supported."""

from __future__ import annotations

import logging
import shutil
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import hypercorn.trio
import hypercorn.trio.run
import hypothesis
import pytest
from coverage import Coverage
from django.core.management import call_command
from django.db import connections

from trio_channels._metrics import recording
from trio_channels.server import error_log
from trio_channels.testing import ApplicationCommunicator

from .postgres import WHY_NOT, PostgresServer, find_postgres

# A script's background processes ignore Ctrl-C, and so would those that tests start in order to send it to them.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Every property test tries the same examples each time, without a deadline: a busy machine fails none.
# Other examples: pytest --hypothesis-profile=explore
hypothesis.settings.register_profile(
    "tests", deadline=None, derandomize=True, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.register_profile(
    "explore", hypothesis.settings.get_profile("tests"), derandomize=False, print_blob=True
)
hypothesis.settings.load_profile("tests")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say why tests were skipped, in a line for each reason; ``-rs`` names the tests."""
    reasons = Counter(report.longrepr[2] for report in terminalreporter.getreports("skipped"))
    for reason, number in reasons.items():
        terminalreporter.write_line(f"{number} tests. {reason}")


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish() -> None:
    """Store the coverage now: pytest-xdist kills a process that takes ten seconds to end, as on a busy machine."""
    measured = Coverage.current()
    if measured is not None:
        measured.stop()
        measured.save()


@pytest.fixture(autouse=True)
def nothing_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test begins without metrics: a ``MetricsApplication`` that was made turns them on for its process."""
    monkeypatch.setattr(recording, "recorder", None)


#: hypercorn's own function. Each application that a test makes replaces it.
WORKER_SERVE = hypercorn.trio.run.worker_serve


@pytest.fixture(autouse=True)
def bare_hypercorn(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Each test begins with hypercorn's own connections; the fixture's value brings them back."""

    def restore() -> None:
        for module in (hypercorn.trio, hypercorn.trio.run):
            monkeypatch.setattr(module, "worker_serve", WORKER_SERVE)

    restore()
    return restore


@pytest.fixture(autouse=True)
def loggers_as_before() -> Iterator[None]:
    """A server that a test starts sets levels and handlers, which the next test must not see."""
    named = [logging.getLogger(name) for name in LOGGERS]
    before = [(logger.level, logger.propagate, logger.disabled, list(logger.handlers)) for logger in named]
    levels = dict(error_log._levels)
    root_level = logging.getLogger().level  # a `logconfig` may set it
    yield
    logging.getLogger().setLevel(root_level)
    for logger, (level, propagate, disabled, handlers) in zip(named, before, strict=True):
        logger.setLevel(level)
        logger.propagate, logger.disabled, logger.handlers = propagate, disabled, handlers
    error_log._levels.clear()
    error_log._levels.update(levels)


#: The loggers that servers change.
LOGGERS = (
    *("hypercorn", "hypercorn.error", "hypercorn.access"),
    *("trio_channels", "trio_channels.access", "trio_channels.runner"),
)

#: Tests run side by side, beside servers and databases: a slow message is late, not lost.
ApplicationCommunicator.timeout = 30.0

#: The table of Django's database cache, which is not among the migrations.
CACHE_TABLE = "cache_table"

#: Empties every table but those that migrations fill.
EMPTY = """
    DO $$ BEGIN EXECUTE (
        SELECT 'TRUNCATE ' || string_agg(quote_ident(tablename), ', ') || ' RESTART IDENTITY CASCADE' FROM pg_tables
        WHERE schemaname = 'public'
        AND tablename NOT IN ('django_migrations', 'django_content_type', 'auth_permission')
    ); END $$
"""


@contextmanager
def default_database(settings: dict[str, Any]) -> Iterator[None]:
    """In the block, Django's default database is another one, for this thread and for those that start."""
    before = connections.settings["default"]
    connections["default"].close()
    del connections["default"]
    # Completed as Django does at its start: TEST, CONN_MAX_AGE and so on.
    connections.settings["default"] = connections.configure_settings({"default": settings})["default"]
    try:
        yield
    finally:
        connections["default"].close()
        del connections["default"]
        connections.settings["default"] = before


def _migrate(settings: dict[str, Any]) -> None:
    with default_database(settings):
        call_command("migrate", verbosity=0)
        call_command("createcachetable", CACHE_TABLE, verbosity=0)


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """A PostgreSQL of this test session's own; a test that stops it must start it again."""
    if find_postgres() is None:
        pytest.skip(WHY_NOT)
    server = PostgresServer()
    try:
        server.start()
        yield server
    finally:
        server.close()


@pytest.fixture(scope="session")
def _migrated_postgres(postgres: PostgresServer, django_db_blocker: Any) -> dict[str, Any]:
    settings = postgres.settings("migrated")
    postgres.create_database("migrated")
    with django_db_blocker.unblock():
        _migrate(settings)
    return settings


@pytest.fixture(scope="session")
def _sqlite_template(tmp_path_factory: pytest.TempPathFactory, django_db_blocker: Any) -> Path:
    path = tmp_path_factory.mktemp("database") / "migrated.sqlite3"
    with django_db_blocker.unblock():
        _migrate(_sqlite(path))
    return path


def _sqlite(path: Path) -> dict[str, Any]:
    # Writers take turns, and wait for theirs, as with any other database.
    return {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": str(path),
        "OPTIONS": {"timeout": 30, "transaction_mode": "IMMEDIATE"},
    }


@pytest.fixture
def postgres_database(
    postgres: PostgresServer, _migrated_postgres: dict[str, Any], django_db_blocker: Any
) -> Iterator[dict[str, Any]]:
    """A migrated and empty PostgreSQL database as Django's default; its settings."""
    with django_db_blocker.unblock(), default_database(dict(_migrated_postgres)):
        yield connections.settings["default"]
    # Quicker than a database for each test. An open connection might hold a lock.
    postgres.terminate_connections(_migrated_postgres["NAME"])
    postgres.execute(EMPTY, database=_migrated_postgres["NAME"])


@pytest.fixture
def sqlite_database(_sqlite_template: Path, tmp_path: Path, django_db_blocker: Any) -> Iterator[dict[str, Any]]:
    """A migrated SQLite file of the test's own as Django's default database; its settings."""
    path = tmp_path / "default.sqlite3"
    shutil.copy(_sqlite_template, path)
    with django_db_blocker.unblock(), default_database(_sqlite(path)):
        yield connections.settings["default"]


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest) -> dict[str, Any]:
    """A migrated and empty database as Django's default, once of each kind; its settings.

    Every thread sees the same data. Commits are real: nothing is rolled back.
    """
    name = {"sqlite": "sqlite_database", "postgresql": "postgres_database"}[request.param]
    settings: dict[str, Any] = request.getfixturevalue(name)
    return settings


@pytest.fixture
def blocking_queries(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a test ask the database from its own async function: nobody else waits for the Trio thread there."""
    monkeypatch.setenv("DJANGO_ALLOW_ASYNC_UNSAFE", "true")
