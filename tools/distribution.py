"""Build the sdist and the wheel, byte for byte the same from the same files: python tools/distribution.py OUT.

Only files that git knows get in. Their time is the date of the first heading in the changelog, or the first that a zip
file can have while that is unreleased. Owners, modes and the order of files are fixed too. Besides the files only the
version of setuptools matters, which the wheel names in its ``WHEEL``.
"""

from __future__ import annotations

import datetime
import gzip
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

CHANGELOG = "CHANGELOG.md"
#: Zip files know no earlier time than 1980.
UNRELEASED = datetime.date(1980, 1, 2)


def epoch_of(changelog: str) -> int:
    """SOURCE_DATE_EPOCH: the start of the day on which the newest version was released, in UTC."""
    heading = re.search(r"^## \S+ \((.+)\)$", changelog, re.MULTILINE)
    if heading is None:
        raise ValueError(f"expected a heading such as '## 0.1.0 (unreleased)' in {CHANGELOG}; got none")
    day = UNRELEASED if heading[1] == "unreleased" else datetime.date.fromisoformat(heading[1])
    return int(datetime.datetime.combine(day, datetime.time(), datetime.UTC).timestamp())


def repack(sdist: Path, target: Path, epoch: int) -> None:
    """Copy a ``.tar.gz`` without what differs between machines: times, owners, modes, the order of files."""
    with (
        tarfile.open(sdist) as source,
        target.open("wb") as file,
        gzip.GzipFile("", "wb", fileobj=file, mtime=epoch) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as archive,
    ):
        for member in sorted(source.getmembers(), key=lambda member: member.name):
            plain = tarfile.TarInfo(member.name)
            plain.size, plain.type, plain.mtime = member.size, member.type, epoch
            plain.mode = 0o755 if member.isdir() else 0o644
            archive.addfile(plain, source.extractfile(member))


def export(root: Path, target: Path) -> None:
    """Copy the files that git knows, as they are in the checkout."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=root, check=True, stdout=subprocess.PIPE, text=True)
    for name in filter(None, listed.stdout.split("\0")):
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(root / name, target / name)


def build(root: Path, out: Path) -> list[Path]:
    """Build both into the folder, which is emptied first, and return their paths."""
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    epoch = epoch_of((root / CHANGELOG).read_text())
    mask = os.umask(0o022)  # the wheel has the modes of files that are made while it is built
    try:
        with tempfile.TemporaryDirectory() as folder:
            sources, made, unpacked = (Path(folder, name) for name in ("sources", "made", "unpacked"))
            export(root, sources)
            _run("--sdist", sources, made, epoch)
            (sdist,) = made.iterdir()
            repack(sdist, out / sdist.name, epoch)
            with tarfile.open(out / sdist.name) as archive:
                archive.extractall(unpacked, filter="data")
            (project,) = unpacked.iterdir()
            _run("--wheel", project, out, epoch)
    finally:
        os.umask(mask)
    return sorted(out.iterdir())


def _run(kind: str, project: Path, out: Path, epoch: int) -> None:
    command = [sys.executable, "-m", "build", "--no-isolation", kind, "--outdir", str(out), str(project)]
    subprocess.run(command, check=True, env=os.environ | {"SOURCE_DATE_EPOCH": str(epoch)}, stdout=subprocess.DEVNULL)


def differences(first: list[Path], second: list[Path]) -> list[str]:
    """The names of the files that are not the same in both lists."""
    contents = [{path.name: path.read_bytes() for path in paths} for paths in (first, second)]
    names = sorted(contents[0].keys() | contents[1].keys())
    return [name for name in names if contents[0].get(name) != contents[1].get(name)]


def build_twice(root: Path, out: Path) -> list[Path]:
    """Build, and build again elsewhere to compare.

    Raises:
        ValueError: the second build has another result; the message names the files.
    """
    first = build(root, out)
    with tempfile.TemporaryDirectory() as folder:
        if different := differences(first, build(root, Path(folder, "again"))):
            raise ValueError(f"expected the same files from a second build; these differ: {', '.join(different)}")
    return first


def main(arguments: list[str]) -> int:
    """Build into the folder that is named; returns the exit code."""
    if len(arguments) != 1:
        print("expected a folder; for example: python tools/distribution.py dist", file=sys.stderr)
        return 2
    for path in build_twice(Path(__file__).resolve().parents[1], Path(arguments[0])):
        print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
