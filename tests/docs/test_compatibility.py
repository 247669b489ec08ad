"""The table of Channels' names: each is here, with a test, or explained."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest

from trio_channels.compat import names as compat_names

TOOL = Path(__file__).parents[2] / "tools" / "compatibility.py"


@pytest.fixture(scope="module")
def table() -> Any:
    spec = importlib.util.spec_from_file_location("compatibility", TOOL)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["compatibility"] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules["compatibility"]


def test_each_name_is_here_or_explained(table: Any) -> None:
    assert table.missing() == []
    assert len(table.rows()) == len(set(compat_names.full_names())) >= 300


def test_no_explanation_is_left_over(table: Any) -> None:
    assert table.outdated() == []


def test_page_has_a_row_for_each_name(table: Any) -> None:
    page = table.page()
    for row in table.rows():
        assert row.why in page
        assert (f"| `{row.place}` | `{row.test}` |" in page) is bool(row.place)


@pytest.mark.parametrize(
    ("place", "found"),
    [
        ("trio_channels.consumer.AsyncConsumer", True),
        ("trio_channels.consumer.AsyncConsumer.scope", True),  # an annotation
        ("trio_channels.routing.ProtocolTypeRouter.application_mapping", True),  # set in __init__
        ("trio_channels.consumer.AsyncConsumer.missing", False),
        ("trio_channels.missing", False),
        ("missing", False),
    ],
)
def test_names_are_looked_up_in_the_package(table: Any, place: str, found: bool) -> None:
    assert table.exists(place) is found


def test_name_without_a_test_is_missing(table: Any) -> None:
    assert table.test_of("trio_channels.consumer.nobody_" + "tests_this") == ""
