"""Channels' public names: their place here, or why there is none.

``names.toml`` has the names, ``places.toml`` the places of those that are not where Channels has them, and the
explanations. Every other name is at the same place below ``trio_channels``. The import system of
:mod:`trio_channels.compat.alias` and the table in the documentation are made of them.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

_HERE = Path(__file__).parent


@cache
def defined() -> dict[str, dict[str, list[str]]]:
    """Module of Channels -> name -> the names of the members."""
    return tomllib.loads((_HERE / "names.toml").read_text())


@cache
def _given() -> dict[str, dict[str, Any]]:
    return tomllib.loads((_HERE / "places.toml").read_text())


@cache
def imported() -> dict[str, str]:
    """Full names that modules of Channels have imported -> the full names of their definitions."""
    modules: dict[str, list[str]] = _given()["imported"]
    return {f"{module}.{name.rpartition('.')[2]}": name for module, names in modules.items() for name in names}


def defined_at(name: str) -> str:
    """The full name at which Channels defines what a full name stands for; it may be one of asgiref."""
    return imported().get(name, name)


def full_names() -> Iterator[str]:
    """All full names, in the order of the list."""
    for module, names in defined().items():
        for name, members in names.items():
            yield f"{module}.{name}"
            yield from (f"{module}.{name}.{member}" for member in members)


def entries() -> set[str]:
    """The names that ``places.toml`` has."""
    return {*_given()["why"], *_given()["place"]}


def why_missing(name: str) -> str:
    """Why a full name has no place here, and what replaces it; "" if it has one, or is none of Channels."""
    why: dict[str, str] = _given()["why"]
    return why.get(nearest(name, why), "")


def place_of(name: str) -> str:
    """The full name here of a full name of Channels. It need not exist."""
    places: dict[str, str] = _given()["place"]
    moved = nearest(name, places)
    return places[moved] + name.removeprefix(moved) if moved else f"trio_{name}"


def nearest(name: str, given: Mapping[str, Any]) -> str:
    """The longest dotted beginning of a name that has an entry; "" if none has."""
    parts = name.split(".")
    beginnings = (".".join(parts[:length]) for length in range(len(parts), 0, -1))
    return next((beginning for beginning in beginnings if beginning in given), "")
