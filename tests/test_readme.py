"""The README's examples work; its commands and the files it links are there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import trio

from trio_channels.testing import WebsocketCommunicator

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


async def test_native_example_is_a_room() -> None:
    names: dict[str, Any] = {}
    exec(compile(BLOCKS[1], "README.md", "exec"), names)
    async with WebsocketCommunicator(names["chat"], "/") as ada, WebsocketCommunicator(names["chat"], "/") as tom:
        assert await ada.connect() == (True, None)
        assert await tom.connect() == (True, None)
        await trio.testing.wait_all_tasks_blocked()
        await ada.send_to(text_data="hello")
        assert [await ada.receive_from(), await tom.receive_from()] == ["hello", "hello"]


def test_consumer_example_is_python_and_imports_what_exists() -> None:
    compile(BLOCKS[0], "README.md", "exec")
    for module, names in re.findall(r"from (trio_channels\S*) import (.*)", BLOCKS[0]):
        found = __import__(module, fromlist=["_"])
        assert all(hasattr(found, name.strip()) for name in names.split(","))


def test_there_are_exactly_two_commands_to_set_up() -> None:
    commands = re.findall(r"^    (python .*)$", README, re.MULTILINE)
    assert commands == [
        "python -m pip install nox && python -m nox -s chat",
        "python -m pip install nox && python -m nox",
    ]


def test_nothing_is_left_to_fill_in() -> None:
    assert not re.findall(r"\b[A-Z]+_ROWS\b|TODO|TBD", README)


def test_every_file_that_it_points_to_exists() -> None:
    targets = [target for target in re.findall(r"\]\(([^)#]+)\)", README) if "://" not in target]
    assert targets
    assert [target for target in targets if not (ROOT / target).exists()] == []
