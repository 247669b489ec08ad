"""The table of docs/reference/packages.md: a line for each package, which was tried in that version, by a test."""

from __future__ import annotations

import re
from importlib.metadata import version
from pathlib import Path

import pytest

HERE = Path(__file__).parent
TABLE, _, WITH_THE_ALIAS = (
    (HERE.parents[1] / "docs" / "reference" / "packages.md").read_text().partition("| package | version | tried |")
)
ROW = re.compile(r"^\| ([a-z-]+) \| (\w+(?:\.\w+)+) \|", re.MULTILINE)
ROWS = dict(ROW.findall(TABLE))
#: Not tried, but needed for the tests.
TOOLS = {"django", "httpx", "opentelemetry-sdk"}
#: Its test is in a folder of its own.
ELSEWHERE = {"django-tenants": HERE.parent / "tenants" / "test_tenants.py"}


def place(package: str) -> Path:
    """The file of a package's tests."""
    return ELSEWHERE.get(package, HERE / f"test_{package.replace('-', '_')}.py")


@pytest.mark.parametrize(("package", "tried"), ROWS.items())
def test_row_has_a_test_and_the_installed_version(package: str, tried: str) -> None:
    assert re.match(r"\d+\.\d+", version(package))[0] == tried
    assert "async def test_" in place(package).read_text()


def test_every_test_and_every_requirement_has_a_row() -> None:
    files = {*HERE.glob("test_*.py")} - {Path(__file__)}
    assert files <= {place(package) for package in ROWS}
    required = set(re.findall(r"^[\w-]+", (HERE / "requirements.txt").read_text(), re.MULTILINE))
    assert required - TOOLS == set(ROWS)


def test_packages_with_the_alias_are_those_that_are_tried() -> None:
    pins = (HERE.parent / "compat" / "packages" / "packages.txt").read_text()
    tried = dict(re.findall(r"^([\w-]+)==([\w.]+?)(?:\.\*)?$", pins, re.MULTILINE))
    assert dict(ROW.findall(WITH_THE_ALIAS)) == tried
