"""The Lua files: each is used, names its keys and arguments, and is sent without comments."""

from __future__ import annotations

import re
from importlib.resources import files

import pytest

from trio_channels.layers.redis import scripts

FOLDER = files(scripts.__name__)
SOURCES = {file.name: file.read_text() for file in FOLDER.iterdir() if file.name.endswith(".lua")}


def named(lines: list[str]) -> set[str]:
    return {name for line in lines for name in re.findall(r"(?:KEYS|ARGV)\[\d+", line)}


def test_every_file_is_a_script_or_included_in_one() -> None:
    loaded = {f"{name.lower()}.lua" for name, value in vars(scripts).items() if isinstance(value, scripts.Script)}
    included = {name for source in SOURCES.values() for name in re.findall(r"^-- include: (.*)$", source, re.MULTILINE)}
    assert loaded | included == set(SOURCES)
    assert len(scripts.ALL_SCRIPTS) == len(loaded)


@pytest.mark.parametrize("file", sorted(SOURCES))
def test_head_names_the_keys_and_arguments(file: str) -> None:
    lines = SOURCES[file].splitlines()
    head = [line for line in lines if line.startswith("--")]
    code = [line for line in lines if not line.startswith("--")]
    assert named(code) <= named(head)


def test_redis_gets_the_code_without_comments() -> None:
    source = scripts.WORK_BURY.source
    assert source.startswith("local function state(id)")
    assert "local function bury(" in source
    assert not any("--" in script.source or "\n\n" in script.source for script in scripts.ALL_SCRIPTS)
