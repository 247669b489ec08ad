"""A whole project for Channels is upgraded, its decisions are made, and its own tests pass."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import trio_channels
from trio_channels.upgrade.__main__ import main
from trio_channels.upgrade.files import write_all

pytestmark = pytest.mark.slow  # the syntax trees of libcst are made slowly

PROJECT = Path(__file__).parent / "project"

#: Decisions that the upgrade leaves to a person: file, line, name; then the text, and the text in its place.
DECIDED = {
    ("chat/jobs.py", 23, "asyncio.ensure_future"): (
        "self.closing = asyncio.ensure_future(self.close_soon())",
        "self.start_soon(self.close_soon)",
    ),
    ("chat/pool.py", 5, "asyncio.Queue"): (
        "waiting = asyncio.Queue()",
        "waiting_send, waiting = trio.open_memory_channel(10)",
    ),
    ("chat/notify.py", 1, "asgiref.sync.iscoroutinefunction"): (
        "from asgiref.sync import iscoroutinefunction",
        "from inspect import iscoroutinefunction",
    ),
    ("chat/notify.py", 13, "asgiref.sync.iscoroutinefunction"): None,
    ("chat/management/commands/announce.py", 19, "trio.Cancelled"): ('print("interrupted")', "raise"),
    ("requirements.txt", 2, "channels>=4.1"): ("channels>=4.1", "trio-channels[redis]"),
    ("requirements.txt", 3, "channels_redis>=4.2"): ("channels_redis>=4.2\n", ""),
    ("requirements.txt", 4, "daphne"): ("daphne\n", ""),
    ("requirements.txt", 5, "pytest-asyncio"): ("pytest-asyncio", "pytest-trio"),
    ("pytest.ini", 3, "asyncio_mode = auto"): ("asyncio_mode = auto", "trio_mode = true"),
}


@pytest.fixture
def project(tmp_path: Path) -> Path:
    ignored = shutil.ignore_patterns("__pycache__", "*.sqlite3")
    return Path(shutil.copytree(PROJECT, tmp_path / "project", ignore=ignored))


def sources(folder: Path) -> dict[str, str]:
    """All files of a project by their paths."""
    return {str(path.relative_to(folder)): path.read_text() for path in sorted(folder.rglob("*")) if path.is_file()}


def decisions(folder: Path, output: str) -> set[tuple[str, int, str]]:
    """The decisions that the command printed."""
    found = set()
    for line in output.splitlines():
        if line.startswith("decide: "):
            place, number, name, *_ = line.removeprefix(f"decide: {folder}{os.sep}").split(":", 3)
            found.add((place, int(number), name.strip()))
    return found


def test_projects_own_tests_pass_after_the_decisions(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(project), "--write"]) == 0
    assert decisions(project, capsys.readouterr().out) == DECIDED.keys()
    for (file, _, _), change in DECIDED.items():
        if change is not None:
            before, after = change
            source = (project / file).read_text()
            assert source.count(before) == 1
            (project / file).write_text(source.replace(before, after))
    pool = project / "chat" / "pool.py"
    pool.write_text(pool.read_text().replace("waiting.qsize()", "waiting.statistics().current_buffer_used"))
    environment = {**os.environ, "PYTHONPATH": str(Path(trio_channels.__file__).parent.parent)}
    environment.pop("DJANGO_SETTINGS_MODULE", None)
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "--strict-markers"],
        cwd=project,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert "6 passed" in run.stdout


def test_second_run_changes_nothing(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main([str(project), "--write"])
    once = sources(project)
    capsys.readouterr()
    assert main([str(project), "--write"]) == 0
    assert sources(project) == once
    assert decisions(project, capsys.readouterr().out) == DECIDED.keys()


def test_without_write_nothing_changes(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = sources(project)
    assert main([str(project)]) == 0
    assert sources(project) == before
    told = capsys.readouterr().out
    assert "+from trio_channels.generic.websocket import AsyncJsonWebsocketConsumer\n" in told
    assert f"to change: {project / 'chat' / 'consumers.py'}\n" in told


def test_check_fails_until_nothing_is_left(project: Path) -> None:
    assert main([str(project / "chat"), "--check"]) == 1
    assert main([str(project / "chat" / "models.py"), "--check"]) == 0


def test_file_that_is_not_python_stops_no_other(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (project / "chat" / "broken.py").write_text("import channels.db\ndef (:\n")
    assert main([str(project), "--write"]) == 2
    assert "trio_channels" in (project / "chat" / "consumers.py").read_text()
    assert (project / "chat" / "broken.py").read_text() == "import channels.db\ndef (:\n"
    assert "broken.py: not changed: it is not valid Python: line 2" in capsys.readouterr().err


def test_file_in_another_encoding_stops_no_other(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (project / "chat" / "other.py").write_bytes(b"# -*- coding: nothing -*-\nimport channels.db\n")
    assert main([str(project / "chat" / "other.py")]) == 2
    assert "other.py: not changed: " in capsys.readouterr().err


def test_all_files_are_written_or_none(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = sources(project)
    access = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path).name != "views.py" and access(path, mode))
    assert main([str(project), "--write"]) == 2
    assert sources(project) == before


def test_permissions_and_links_stay(project: Path) -> None:
    file = project / "chat" / "views.py"
    file.chmod(0o750)
    (project / "linked.py").symlink_to(file)
    write_all({project / "linked.py": b"new"})
    assert file.read_bytes() == b"new"
    assert file.stat().st_mode & 0o777 == 0o750
    assert (project / "linked.py").is_symlink()


def test_environments_and_migrations_are_left_alone(project: Path) -> None:
    for name in ("venv/lib/a.py", "own/lib/a.py", "node_modules/a.py", "chat/migrations/0002.py"):
        file = project / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("import channels.db\n")
    (project / "own" / "pyvenv.cfg").write_text("")
    main([str(project), "--write"])
    assert "import channels.db" in (project / "chat" / "migrations" / "0002.py").read_text()
    assert "import channels.db" in (project / "own" / "lib" / "a.py").read_text()
    assert "import channels.db" in (project / "venv" / "lib" / "a.py").read_text()


def test_path_that_does_not_exist_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([str(tmp_path / "nowhere")])
    assert ended.value.code == 2
    assert "nowhere does not exist" in capsys.readouterr().err


def test_missing_libcst_is_told(tmp_path: Path) -> None:
    (tmp_path / "libcst.py").write_text("raise ModuleNotFoundError('libcst')")
    root = str(Path(trio_channels.__file__).parent.parent)
    run = subprocess.run(
        [sys.executable, "-m", "trio_channels.upgrade", str(tmp_path)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), root])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 1
    assert "pip install 'trio-channels[upgrade]'" in run.stderr
