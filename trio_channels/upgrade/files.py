"""The files of a project: which ones are looked at, how they are written, and the places outside of Python code."""

from __future__ import annotations

import os
import re
import stat
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path

from .decisions import Decision

#: Folders that hold no code of the project.
_SKIPPED = frozenset(
    {"__pycache__", "node_modules", "site-packages", "build", "dist", "venv", ".venv", "env", ".tox", ".nox", ".git"}
)

#: Lines outside of Python code, by a pattern -> the way here.
_CONFIGURATION = {
    r"^\s*asyncio_mode\s*=|asyncio_default_fixture_loop_scope": "trio_mode = true, of pytest-trio",
    r"\bpytest[-_]asyncio\b": "pytest-trio",
    r"\bchannels[-_]redis\b": "trio-channels[redis]",
    r"^\W*channels(\[\w+\])?\W": "trio-channels",
    r"\bdaphne\b": "trio-channels serve mysite.asgi:application",
    r"\buvicorn\b": "trio-channels serve mysite.asgi:application",
}
_CONFIGURATION_FILES = re.compile(
    r"requirements.*\.(txt|in)|pyproject\.toml|setup\.(cfg|py)|tox\.ini|pytest\.ini|Pipfile|Procfile|Dockerfile.*"
    r"|(docker-)?compose.*\.ya?ml|.*\.service"
)


def python_files(path: Path) -> Iterator[Path]:
    """The Python files below a folder, in order; a file by itself. Migrations are code of Django's, and stay."""
    if path.is_file():
        yield path
        return
    for folder, folders, names in os.walk(path):
        folders[:] = sorted(
            name
            for name in folders
            if name not in _SKIPPED and not name.endswith(".egg-info") and not Path(folder, name, "pyvenv.cfg").exists()
        )
        for name in sorted(names):
            if name.endswith(".py") and Path(folder).name != "migrations":
                yield Path(folder, name)


def configuration(path: Path) -> Iterator[tuple[Path, Decision]]:
    """The lines of requirements, settings of tools and units that name a part of Channels."""
    if not path.is_dir():
        return
    for folder, folders, names in os.walk(path):
        folders[:] = sorted(name for name in folders if name not in _SKIPPED)
        for name in sorted(names):
            if not _CONFIGURATION_FILES.fullmatch(name):
                continue
            file = Path(folder, name)
            with suppress(UnicodeDecodeError):
                for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
                    for pattern, way in _CONFIGURATION.items():
                        if re.search(pattern, line) and "trio" not in line:
                            yield file, Decision(number, line.strip(), way)
                            break


def write_all(sources: Mapping[Path, bytes]) -> None:
    """Write all files or, if one cannot be written, none: each is written beside its place first.

    Raises:
        OSError: a file cannot be written; the project is as it was.
    """
    with ExitStack() as stack:
        written: list[tuple[Path, Path]] = []
        for path, source in sources.items():
            place = path.resolve()  # a link stays a link
            descriptor, name = tempfile.mkstemp(prefix=f".{place.name}.", dir=place.parent)
            stack.callback(Path(name).unlink, missing_ok=True)
            with os.fdopen(descriptor, "wb") as file:
                file.write(source)
            Path(name).chmod(stat.S_IMODE(place.stat().st_mode))
            if not os.access(place, os.W_OK):
                raise PermissionError(f"cannot write {path}: it is not writable")
            written.append((Path(name), place))
        for new, place in written:
            new.replace(place)
