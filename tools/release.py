"""Cut a release of this checkout: python -m nox -s release -- 0.1.0. Nothing is pushed, nothing is uploaded.

1. Check: a clean checkout of the branch `main`, a version that is new, and its heading in the changelog.
2. Write the version into the package, the date into the changelog, and both into CITATION.cff.
3. Build the distribution into dist/, twice to see that it is reproducible, and have twine check it.
4. Commit, and tag the commit.

A failure puts the files back.
"""

from __future__ import annotations

import datetime
import re
import subprocess
import sys
from pathlib import Path

import distribution

MODULE, CHANGELOG, CITATION, DIST = "trio_channels/__init__.py", "CHANGELOG.md", "CITATION.cff", "dist"
CHANGED = (MODULE, CHANGELOG, CITATION)
BRANCH = "main"


class ReleaseError(Exception):
    """The release cannot be cut; the message says what to do."""


def git(root: Path, *arguments: str) -> str:
    """Run git, and return what it prints."""
    done = subprocess.run(["git", *arguments], cwd=root, check=True, stdout=subprocess.PIPE, text=True)
    return done.stdout.strip()


def check_checkout(root: Path, tag: str) -> None:
    """Raise ReleaseError unless the checkout is clean, on the branch for releases, and without the tag."""
    if changed := git(root, "status", "--porcelain"):
        raise ReleaseError(f"expected a clean checkout; commit or remove these first:\n{changed}")
    if (branch := git(root, "branch", "--show-current")) != BRANCH:
        raise ReleaseError(f"expected the branch {BRANCH}; got {branch or 'no branch'!r}. Check out {BRANCH}")
    if git(root, "tag", "--list", tag):
        raise ReleaseError(f"the tag {tag} exists already; choose a new version")


def with_version(source: str, version: str) -> str:
    """The package's source with that version."""
    changed, found = re.subn(r'^__version__ = ".*"$', f'__version__ = "{version}"', source, flags=re.MULTILINE)
    if found != 1:
        raise ReleaseError(f"expected one line such as '__version__ = \"{version}\"' in {MODULE}; got {found}")
    return changed


def with_date(changelog: str, version: str, date: datetime.date) -> str:
    """The changelog with the release's date in place of `unreleased`, in its first heading."""
    expected = f"## {version} (unreleased)"
    _, *sections = re.split(r"^(?=## )", changelog, flags=re.MULTILINE)
    first, *lines = sections[0].splitlines() if sections else ["no heading"]
    if first != expected:
        raise ReleaseError(f"expected {expected!r} as the first heading in {CHANGELOG}; got {first!r}")
    if not any(line.strip() and not line.startswith("#") for line in lines):
        raise ReleaseError(f"expected entries below {expected!r} in {CHANGELOG}; got none")
    return changelog.replace(expected, f"## {version} ({date.isoformat()})", 1)


def with_citation(citation: str, version: str, date: datetime.date) -> str:
    """The citation file with the version and the release's date."""
    undated = re.sub(r"^date-released: .*\n", "", citation, flags=re.MULTILINE)
    lines = f"version: {version}\ndate-released: {date.isoformat()}"
    changed, found = re.subn(r"^version: .*$", lines, undated, flags=re.MULTILINE)
    if found != 1:
        raise ReleaseError(f"expected one line such as 'version: {version}' in {CITATION}; got {found}")
    return changed


def prepare(root: Path, version: str, date: datetime.date) -> None:
    """Steps 1 and 2."""
    if not re.fullmatch(r"\d+\.\d+\.\d+((a|b|rc)\d+)?", version):
        raise ReleaseError(f"expected a version such as 0.1.0 or 0.2.0rc1; got {version!r}")
    check_checkout(root, f"v{version}")
    module, changelog, citation = (root / name for name in CHANGED)
    changed = {
        module: with_version(module.read_text(), version),
        changelog: with_date(changelog.read_text(), version, date),
        citation: with_citation(citation.read_text(), version, date),
    }
    for path, text in changed.items():
        path.write_text(text)


def build(root: Path, version: str) -> None:
    """Step 3."""
    try:
        built = distribution.build_twice(root, root / DIST)
    except ValueError as error:
        raise ReleaseError(str(error)) from error
    files = [path.name for path in built]
    expected = [f"trio_channels-{version}-py3-none-any.whl", f"trio_channels-{version}.tar.gz"]
    if files != expected:
        raise ReleaseError(f"expected {expected} in {DIST}/; got {files}")
    subprocess.run([sys.executable, "-m", "twine", "check", "--strict", *map(str, built)], check=True)


def record(root: Path, version: str) -> None:
    """Step 4. The commit is empty if the files were as they must be."""
    git(root, "commit", "--quiet", "--allow-empty", "--message", f"Version {version}", "--", *CHANGED)
    git(root, "tag", "--annotate", f"v{version}", "--message", f"trio-channels {version}")


def main(arguments: list[str]) -> int:
    """Cut the release that the arguments name; returns the exit code."""
    root = Path(__file__).resolve().parents[1]
    if len(arguments) != 1:
        print("expected one version; for example: python -m nox -s release -- 0.1.0", file=sys.stderr)
        return 2
    (version,) = arguments
    try:
        prepare(root, version, datetime.datetime.now(datetime.UTC).date())
        try:
            build(root, version)
            record(root, version)
        except BaseException:
            git(root, "checkout", "--quiet", "HEAD", "--", *CHANGED)
            raise
    except (ReleaseError, subprocess.CalledProcessError) as error:
        print(f"no release: {error}", file=sys.stderr)
        return 1
    print(f"v{version} is committed, tagged, and built in {DIST}/. To publish it:")
    print(f"    git push origin {BRANCH} v{version}")
    print(f"    python -m twine upload {DIST}/*")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
