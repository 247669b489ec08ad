"""The errors on the troubleshooting page are those of the package, or known ones of others."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "how-to" / "troubleshoot.md").read_text()
#: Errors of Python, Trio, asgiref and Django.
FOREIGN = {
    "no running event loop",
    "there is no current event loop",
    "trio.run received unrecognized yield message",
    "'NoneType' object has no attribute 'create_future'",
    "must be called from async context",
    "Task got bad yield",
    "You cannot call this from an async context",
    "'NoneType' object has no attribute 'group_send'",
    "KeyError: 'user'",
    "KeyError: 'history'",
    "was never awaited",
}


def errors() -> list[str]:
    table = PAGE.partition("| the error says |")[2].partition("\n\n")[0]
    return re.findall(r"^\| `(.+?)` \|", table, re.MULTILINE)


def messages() -> list[str]:
    """Every string of the package, with `...` for the parts that are filled in."""
    found = []
    for path in (ROOT / "trio_channels").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_bytes())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(re.sub(r"%\w", "...", node.value))
            elif isinstance(node, ast.JoinedStr):
                parts = (part.value if isinstance(part, ast.Constant) else "..." for part in node.values)
                found.append("".join(map(str, parts)))
    return found


MESSAGES = "\n".join(messages())


@pytest.mark.parametrize("error", [error for error in errors() if error not in FOREIGN])
def test_error_is_one_of_the_package(error: str) -> None:
    assert error in MESSAGES


def test_page_has_the_errors_of_others() -> None:
    assert set(errors()) >= FOREIGN
