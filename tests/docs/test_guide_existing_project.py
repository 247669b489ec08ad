"""A project of startproject, changed as the guide says and by nothing else, passes the tests of the guide."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from django.core.management import call_command

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "how-to" / "existing-project.md").read_text()
SNIPPETS = ROOT / "docs" / "snippets" / "existing"


def additions(name: str) -> str:
    """The code that the page adds to the end of a file."""
    return re.findall(rf"to the end of `{name}`:\n\n```python\n(.*?)```", PAGE, re.DOTALL)[0]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    place = tmp_path / "project"
    place.mkdir()
    call_command("startproject", "mysite", str(place))
    for name in ("mysite/settings.py", "mysite/urls.py"):
        with (place / name).open("a") as file:
            file.write(additions(name))
    for source in SNIPPETS.rglob("*"):
        target = place / source.relative_to(SNIPPETS)
        if source.is_file() and source.suffix in (".py", ".html"):
            # Only its asgi.py is replaced; everything else is new.
            assert target.name == "asgi.py" or source.stat().st_size == 0 or not target.exists()
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, target)
    (place / "pytest.ini").write_text(re.findall(r"```ini\n(.*?)```", PAGE, re.DOTALL)[0])
    return place


def python(project: Path, *arguments: str) -> str:
    environment = {name: value for name, value in os.environ.items() if name != "DJANGO_SETTINGS_MODULE"}
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=project,
        env=environment | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.mark.slow
def test_guide_leads_to_a_project_that_works(project: Path) -> None:
    assert "no issues" in python(project, "manage.py", "check")
    assert "2 passed" in python(project, "-m", "pytest", "-q")


def test_guide_shows_every_file() -> None:
    for source in SNIPPETS.rglob("*"):
        if source.suffix in (".py", ".html") and source.stat().st_size:
            name = source.relative_to(SNIPPETS).as_posix()
            assert f"`{name}`" in PAGE
            assert f"/snippets/existing/{name}" in PAGE
