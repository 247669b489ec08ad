"""The release command checks a checkout, dates its changelog, commits and tags; nothing else."""

from __future__ import annotations

import datetime
import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from trio_channels import __version__

ROOT = Path(__file__).parents[1]
DAY = datetime.date(2030, 1, 31)
CHANGELOG = (
    "# Changelog\n\n## 0.2.0 (unreleased)\n\n- Something new.\n\n## 0.1.0 (2029-12-24)\n\n- The first version.\n"
)


def _load() -> Any:
    spec = importlib.util.spec_from_file_location("release", ROOT / "tools" / "release.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


release = _load()


def git(root: Path, *arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=root, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small repository with a package and a changelog."""
    for role in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{role}_NAME", "Ada")
        monkeypatch.setenv(f"GIT_{role}_EMAIL", "ada@example.org")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", "/dev/null")
    package = tmp_path / "trio_channels"
    package.mkdir()
    (package / "__init__.py").write_text('__version__ = "0.1.0"\n')
    (tmp_path / "CHANGELOG.md").write_text(CHANGELOG)
    git(tmp_path, "init", "--quiet", "--initial-branch", "main")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "--quiet", "--message", "Begin")
    return tmp_path


def test_release_is_dated_committed_and_tagged(checkout: Path) -> None:
    release.prepare(checkout, "0.2.0", DAY)
    release.record(checkout, "0.2.0")
    assert (checkout / "trio_channels" / "__init__.py").read_text() == '__version__ = "0.2.0"\n'
    assert "## 0.2.0 (2030-01-31)\n\n- Something new." in (checkout / "CHANGELOG.md").read_text()
    assert git(checkout, "status", "--porcelain") == ""
    assert git(checkout, "log", "-1", "--format=%s") == "Version 0.2.0"
    assert git(checkout, "describe") == "v0.2.0"


@pytest.mark.parametrize("version", ["0.2", "v0.2.0", "0.2.0-rc1", "next"])
def test_strange_version_is_refused(checkout: Path, version: str) -> None:
    with pytest.raises(release.ReleaseError, match="expected a version such as"):
        release.prepare(checkout, version, DAY)


def test_changed_files_are_refused(checkout: Path) -> None:
    (checkout / "forgotten.py").touch()
    with pytest.raises(release.ReleaseError, match=r"clean checkout(.|\n)*forgotten\.py"):
        release.prepare(checkout, "0.2.0", DAY)


def test_another_branch_is_refused(checkout: Path) -> None:
    git(checkout, "checkout", "--quiet", "-b", "experiment")
    with pytest.raises(release.ReleaseError, match="expected the branch main; got 'experiment'"):
        release.prepare(checkout, "0.2.0", DAY)


def test_version_is_released_once(checkout: Path) -> None:
    git(checkout, "tag", "v0.2.0")
    with pytest.raises(release.ReleaseError, match=r"the tag v0\.2\.0 exists already"):
        release.prepare(checkout, "0.2.0", DAY)


def test_first_heading_must_be_the_version(checkout: Path) -> None:
    with pytest.raises(release.ReleaseError, match=r"'## 0\.3\.0 \(unreleased\)' as the first heading"):
        release.prepare(checkout, "0.3.0", DAY)
    assert git(checkout, "status", "--porcelain") == ""


@pytest.mark.parametrize(
    "changelog", ["## 0.2.0 (unreleased)\n", "## 0.2.0 (unreleased)\n\n### Fixed\n\n## 0.1.0\nx\n"]
)
def test_release_without_entries_is_refused(changelog: str) -> None:
    with pytest.raises(release.ReleaseError, match="expected entries"):
        release.with_date(changelog, "0.2.0", DAY)


def test_command_says_how_it_is_called() -> None:
    done = subprocess.run([sys.executable, ROOT / "tools" / "release.py"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert "python -m nox -s release -- 0.1.0" in done.stderr


def test_this_version_has_its_heading_in_the_changelog() -> None:
    assert f"\n## {__version__} (" in (ROOT / "CHANGELOG.md").read_text()
