"""The paths and names in the architecture page, CONTRIBUTING and SECURITY exist."""

from __future__ import annotations

import pkgutil
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "trio_channels"
PAGE = (ROOT / "docs" / "discussion" / "architecture.md").read_text()
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text()
SECURITY = (ROOT / "SECURITY.md").read_text()

#: Modules and packages at the top of the package.
TOP = {path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}


def _drawn() -> Iterator[Path]:
    """Every path of the page's tree."""
    drawing = PAGE.partition("```text\n")[2].partition("```")[0]
    parents: list[tuple[int, Path]] = [(-1, ROOT)]
    for line in drawing.splitlines():
        name = line.split()[0]
        depth = line.index(name)
        while parents[-1][0] >= depth:
            parents.pop()
        path = parents[-1][1] / name
        parents.append((depth, path))
        yield path


def _code(page: str) -> list[str]:
    """Every piece of code that stands in a page's text."""
    return re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", page, flags=re.DOTALL))


def _paths(page: str) -> list[str]:
    return [code for code in _code(page) if re.fullmatch(r"[\w.]*(/[\w.]+)*/?", code) and "/" in code]


def _names() -> list[str]:
    """Every dotted name of the page that is one of the package's."""
    dotted = [code for code in _code(PAGE) if re.fullmatch(r"\w+(\.\w+)+", code)]
    return sorted({name for name in dotted if name.partition(".")[0] in TOP})


def test_every_path_of_the_tree_exists() -> None:
    assert [str(path) for path in _drawn() if not path.exists()] == []


def test_tree_has_every_package() -> None:
    packages = {path.parent for path in PACKAGE.rglob("__init__.py")}
    assert {str(path.relative_to(ROOT)) for path in packages - set(_drawn())} == set()


def test_tree_has_every_module_at_the_top() -> None:
    assert {path.name for path in set(PACKAGE.glob("*.py")) - set(_drawn())} == set()


@pytest.mark.parametrize("page", [PAGE, CONTRIBUTING, SECURITY], ids=["architecture", "CONTRIBUTING", "SECURITY"])
def test_every_path_in_the_text_exists(page: str) -> None:
    made_later = {"dist/"}
    paths = set(_paths(page)) - made_later
    assert paths
    assert [path for path in sorted(paths) if not (ROOT / path).exists()] == []


def test_flows_name_functions() -> None:
    assert len(_names()) > 50


@pytest.mark.parametrize("name", _names())
def test_function_of_the_flows_exists(name: str) -> None:
    assert pkgutil.resolve_name(f"trio_channels.{name}") is not None


def test_every_link_of_contributing_leads_somewhere() -> None:
    targets = [target for target in re.findall(r"\]\(([^)#]+)\)", CONTRIBUTING) if "://" not in target]
    assert [target for target in targets if not (ROOT / target).exists()] == []
