"""The ``asgi.py`` that ``startproject`` makes, kept as it is: every way to start a server names the right import."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from django.core.management import call_command

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 200
REMEDY = "import get_asgi_application from trio_channels.asgi, not from django.core.asgi"
SILENT = "SILENCED_SYSTEM_CHECKS = ['trio_channels.E012']\n"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    call_command("startproject", "mysite", str(tmp_path))
    settings = tmp_path / "mysite" / "settings.py"
    text = settings.read_text().replace("INSTALLED_APPS = [", "INSTALLED_APPS = [\n    'trio_channels',")
    settings.write_text(f"{text}\nASGI_APPLICATION = 'mysite.asgi.application'\n")
    return tmp_path


def run(project: Path, *arguments: str, settings: str = "") -> subprocess.CompletedProcess[str]:
    with (project / "mysite" / "settings.py").open("a") as file:
        file.write(settings)
    environment = {
        **os.environ,
        "PYTHONPATH": f"{ROOT}{os.pathsep}{project}",
        "DJANGO_SETTINGS_MODULE": "mysite.settings",
    }
    command = [sys.executable, *arguments]
    return subprocess.run(
        command, cwd=project, env=environment, capture_output=True, text=True, timeout=PATIENCE, check=False
    )


HYPERCORN = ("-m", "hypercorn", "--worker-class", "trio", "--bind", "127.0.0.1:0", "mysite.asgi:application")


@pytest.mark.parametrize(
    ("arguments", "settings"),
    [
        (("-m", "trio_channels", "serve", "--bind", "127.0.0.1:0", "mysite.asgi:application"), ""),
        (HYPERCORN, ""),
        (HYPERCORN, "TRIO_CHANNELS = {'HARDEN_HYPERCORN': False}\n"),
        (("manage.py", "runserver", "--noreload", "0"), SILENT),
    ],
    ids=["serve", "hypercorn", "hypercorn, not hardened", "runserver"],
)
def test_server_does_not_start_with_djangos_own_handler(
    project: Path, arguments: tuple[str, ...], settings: str
) -> None:
    ended = run(project, *arguments, settings=settings)
    assert REMEDY in ended.stderr
    assert "Running on" not in ended.stderr + ended.stdout


def test_check_names_the_line_of_asgi_py(project: Path) -> None:
    ended = run(project, "manage.py", "check")
    assert ended.returncode == 1
    assert "(trio_channels.E012) mysite.asgi, line 12, imports django.core.asgi, which needs asyncio." in ended.stderr


def test_project_with_our_import_is_fine(project: Path) -> None:
    asgi = project / "mysite" / "asgi.py"
    asgi.write_text(asgi.read_text().replace("django.core.asgi", "trio_channels.asgi"))
    ended = run(project, "manage.py", "check")
    assert (ended.returncode, ended.stderr) == (0, "")
