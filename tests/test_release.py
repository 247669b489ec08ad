"""The release command checks a checkout, dates its changelog, commits and tags; nothing else."""

from __future__ import annotations

import datetime
import io
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from trio_channels import __version__

ROOT = Path(__file__).parents[1]
DAY = datetime.date(2030, 1, 31)
CHANGELOG = (
    "# Changelog\n\n## 0.2.0 (unreleased)\n\n- Something new.\n\n## 0.1.0 (2029-12-24)\n\n- The first version.\n"
)


sys.path.insert(0, str(ROOT / "tools"))

import distribution  # noqa: E402
import release  # noqa: E402

sys.path.pop(0)


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
    (tmp_path / "CITATION.cff").write_text("cff-version: 1.2.0\nversion: 0.1.0\ndate-released: 2029-12-24\n")
    git(tmp_path, "init", "--quiet", "--initial-branch", "main")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "--quiet", "--message", "Begin")
    return tmp_path


def test_release_is_dated_committed_and_tagged(checkout: Path) -> None:
    release.prepare(checkout, "0.2.0", DAY)
    release.record(checkout, "0.2.0")
    assert (checkout / "trio_channels" / "__init__.py").read_text() == '__version__ = "0.2.0"\n'
    assert "## 0.2.0 (2030-01-31)\n\n- Something new." in (checkout / "CHANGELOG.md").read_text()
    citation = (checkout / "CITATION.cff").read_text()
    assert citation == "cff-version: 1.2.0\nversion: 0.2.0\ndate-released: 2030-01-31\n"
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


def test_this_version_is_the_one_to_cite() -> None:
    assert f"\nversion: {__version__}\n" in (ROOT / "CITATION.cff").read_text()


def test_citation_without_a_version_is_refused() -> None:
    with pytest.raises(release.ReleaseError, match=r"one line such as 'version: 0\.2\.0'"):
        release.with_citation("title: x\n", "0.2.0", DAY)


# -- the distribution -------------------------------------------------------------------------------------------------


def test_time_of_the_files_is_that_of_the_release() -> None:
    assert distribution.epoch_of("# Changelog\n\n## 0.2.0 (2030-01-31)\n\n## 0.1.0 (2029-12-24)\n") == 1896048000
    assert distribution.epoch_of(CHANGELOG) == 315619200
    with pytest.raises(ValueError, match="expected a heading"):
        distribution.epoch_of("# Changelog\n")


def packed(path: Path, names: list[str], **attributes: object) -> Path:
    """A tar.gz as a machine makes it."""
    with tarfile.open(path, "w:gz") as archive:
        for name in names:
            member = tarfile.TarInfo(name)
            member.size = len(name)
            for attribute, value in attributes.items():
                setattr(member, attribute, value)
            archive.addfile(member, io.BytesIO(name.encode()))
    return path


def test_packed_files_do_not_tell_the_machine(tmp_path: Path) -> None:
    packed(tmp_path / "1.tar.gz", ["a", "b/c"], mtime=1e9, uid=1000, uname="ada", mode=0o664)
    packed(tmp_path / "2.tar.gz", ["b/c", "a"], mtime=2e9, gid=7, gname="staff", mode=0o600)
    for number in (1, 2):
        distribution.repack(tmp_path / f"{number}.tar.gz", tmp_path / f"{number}.packed", 1896048000)
    assert distribution.differences([tmp_path / "1.packed"], [tmp_path / "1.packed"]) == []
    assert (tmp_path / "1.packed").read_bytes() == (tmp_path / "2.packed").read_bytes()
    with tarfile.open(tmp_path / "1.packed") as archive:
        assert archive.extractfile("b/c").read() == b"b/c"  # type: ignore[union-attr]
        assert {(member.mtime, member.mode) for member in archive} == {(1896048000, 0o644)}


def test_other_contents_are_a_difference(tmp_path: Path) -> None:
    for folder, text in (("one", "a"), ("two", "b")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "same").touch()
        (tmp_path / folder / "wheel").write_text(text)
    (tmp_path / "two" / "more").touch()
    first, second = (list((tmp_path / folder).iterdir()) for folder in ("one", "two"))
    assert distribution.differences(first, second) == ["more", "wheel"]


def test_files_that_git_does_not_know_stay_out(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    (checkout / "secret.key").touch()
    (checkout / "CHANGELOG.md").write_text("changed")
    target = tmp_path_factory.mktemp("export")
    distribution.export(checkout, target)
    assert sorted(path.name for path in target.iterdir()) == ["CHANGELOG.md", "CITATION.cff", "trio_channels"]
    assert (target / "CHANGELOG.md").read_text() == "changed"
