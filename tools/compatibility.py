"""The table of Channels' public names: their place here and the test that shows it, or why there is none.

:mod:`trio_channels.compat.names` has the names, their places and the explanations. The documentation includes the
table.
"""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from trio_channels.compat import names as compat_names

TESTS = Path(__file__).parents[1] / "tests"


class Row(NamedTuple):
    """One name of Channels; `place` or `why` is empty."""

    name: str
    place: str
    test: str
    why: str


def rows() -> list[Row]:
    """A row for each name."""
    return [_row(name) for name in compat_names.full_names()]


def _row(name: str) -> Row:
    why = compat_names.why_missing(name)
    if why:
        return Row(name, "", "", why)
    place = compat_names.place_of(name)
    return Row(name, place if exists(place) else "", test_of(place), "")


def exists(place: str) -> bool:
    """Whether a full name can be imported, or is an attribute of such a class."""
    parts = place.split(".")
    for length in range(len(parts), 0, -1):
        try:
            found: Any = importlib.import_module(".".join(parts[:length]))
        except ModuleNotFoundError:
            continue
        for part in parts[length:]:
            if not _has(found, part):
                return False
            found = getattr(found, part, None)
        return True
    return False


def _has(owner: Any, name: str) -> bool:
    bases = getattr(owner, "__mro__", ())
    if hasattr(owner, name) or any(name in vars(base) for base in bases):  # a property of the class may fail there
        return True
    classes = [base for base in bases if base.__module__.startswith("trio_channels")]
    return any(
        name in inspect.get_annotations(base)
        or re.search(rf"\b(self|cls)\.{name}\b[^=\n]*=[^=]", inspect.getsource(base))
        for base in classes
    )


@cache
def _words() -> dict[Path, frozenset[str]]:
    return {path: frozenset(re.findall(r"\w+", path.read_text())) for path in sorted(TESTS.rglob("test_*.py"))}


def test_of(place: str) -> str:
    """The test file that fits best among those that name a place: its owner too, in a directory of its module."""
    *module, owner, name = place.split(".")

    def fit(path: Path) -> tuple[bool, int]:
        near = sum(part in str(path.relative_to(TESTS)) for part in (*module, owner.lower()))
        return owner in _words()[path], near

    fitting = [path for path, words in _words().items() if name in words]
    return str(max(fitting, key=fit).relative_to(TESTS.parent)) if fitting else ""


def missing() -> list[str]:
    """The names that are neither here, with a test, nor explained."""
    return [row.name for row in rows() if not row.why and not (row.place and row.test)]


def outdated() -> list[str]:
    """The entries of ``places.toml`` that belong to no name of Channels."""
    known = {name for full in compat_names.full_names() for name in _beginnings(full)}
    return sorted(compat_names.entries() - known)


def _beginnings(name: str) -> Iterator[str]:
    parts = name.split(".")
    return (".".join(parts[:length]) for length in range(1, len(parts) + 1))


def page() -> str:
    """The table as Markdown, one for each module of Channels."""
    modules = [*compat_names.defined()]
    lines: list[str] = []
    all_rows = rows()
    for module in modules:
        lines += [f"## {module}", "", "| in Channels | here | shown by, or the reason |", "|---|---|---|"]
        for row in all_rows:
            if compat_names.nearest(row.name, compat_names.defined()) == module:
                name = row.name.removeprefix(module + ".")
                lines.append(
                    f"| `{name}` | `{row.place}` | `{row.test}` |" if row.place else f"| `{name}` | - | {row.why} |"
                )
        lines.append("")
    return "\n".join(lines)
