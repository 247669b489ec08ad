"""The pages of the tutorial show every file of each part, and mark the lines that change."""

from __future__ import annotations

import difflib
import json
import re
import sys
from pathlib import Path

import pytest
import trio

from ..integration.server.conftest import Server
from ..process import program

sys.path.insert(0, str(Path(__file__).parents[2] / "tools"))

import tutorial

sys.path.pop(0)

#: A file that a page shows, with the lines that it marks, if it does.
SHOWN = re.compile(
    r"\{literalinclude\} /snippets/tutorial/(\d_\w+)/(\S+)\n(?::language: .*\n)?(?::emphasize-lines: (.*))?"
)
SERVE = ("-m", "trio_channels", "serve", "mysite.asgi:application", "--bind", "127.0.0.1:0")
#: A variable of this test run that a project would read.
NO_SETTINGS = {"DJANGO_SETTINGS_MODULE": "mysite.settings"}


def page_of(part: str) -> str:
    return (tutorial.DOCS / "tutorial" / f"{part}.md").read_text()


def folder_of(part: str) -> Path:
    return tutorial.SNIPPETS / f"{tutorial.PARTS.index(part) + 1}_{part}"


def changed_lines(before: str, after: str) -> set[int]:
    """The numbers of the lines of a file that were not in it before."""
    matcher = difflib.SequenceMatcher(None, before.splitlines(), after.splitlines(), autojunk=False)
    return {line + 1 for tag, _, _, start, end in matcher.get_opcodes() if tag != "equal" for line in range(start, end)}


def as_written(lines: set[int]) -> str:
    """Numbers as the directive takes them: ``1, 3-5``."""
    starts = sorted(line for line in lines if line - 1 not in lines)
    ends = sorted(line for line in lines if line + 1 not in lines)
    return ", ".join(str(start) if start == end else f"{start}-{end}" for start, end in zip(starts, ends, strict=True))


def test_parts_are_the_pages_and_the_folders() -> None:
    index = page_of("index")
    assert re.findall(r"^\| \{doc\}`(\w+)`", index, re.MULTILINE) == list(tutorial.PARTS)
    folders = sorted(path.name for path in tutorial.SNIPPETS.iterdir() if path.is_dir())
    assert folders == [folder_of(part).name for part in tutorial.PARTS]


@pytest.mark.parametrize("part", tutorial.PARTS)
def test_page_shows_every_file_under_its_name(part: str) -> None:
    shown = [text for kind, text in tutorial.steps(part) if kind == "file"]
    files = [path for path in folder_of(part).rglob("*") if path.is_file() and path.stat().st_size]
    assert sorted(shown) == sorted(path.relative_to(folder_of(part)).as_posix() for path in files)
    for name in shown:
        before, _ = page_of(part).split(f"/snippets/tutorial/{folder_of(part).name}/{name}\n", 1)
        assert f"`{name}`" in before.rsplit("```", 1)[0].rsplit("```", 1)[-1]


@pytest.mark.parametrize("part", tutorial.PARTS)
def test_page_marks_the_lines_that_change(part: str) -> None:
    for folder, name, marked in SHOWN.findall(page_of(part)):
        before = [folder_of(one) / name for one in tutorial.PARTS[: tutorial.PARTS.index(part)]]
        there = [path for path in before if path.exists()]
        if marked:
            changed = changed_lines(there[-1].read_text(), (tutorial.SNIPPETS / folder / name).read_text())
            assert (name, marked) == (name, as_written(changed))


def test_tool_refuses_what_it_does_not_know(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert tutorial.main(["7", str(tmp_path / "new")]) == 2
    assert tutorial.main(["1", str(tmp_path)]) == 2
    errors = capsys.readouterr().err
    assert "expected a part, 1 to 6" in errors
    assert f"expected a new folder; {tmp_path} exists" in errors


async def test_chat_page_of_the_first_part_works(tmp_path: Path) -> None:
    await trio.to_thread.run_sync(tutorial.main, ["1", str(tmp_path / "mychat")])
    async with program(*SERVE, cwd=tmp_path / "mychat", **NO_SETTINGS) as process:
        server = Server(await process.port())
        assert b"<h1>lobby</h1>" in (await server.request("GET", "/chat/lobby/")).body
        headers = [(b"Origin", f"http://127.0.0.1:{server.port}".encode())]
        async with (
            server.websocket("/ws/chat/lobby/", extra_headers=headers) as one,
            server.websocket("/ws/chat/lobby/", extra_headers=headers) as other,
        ):
            await one.send_message("[]")
            assert json.loads(await one.get_message()) == {"error": 'expected {"text": "..."}'}
            await one.send_message('{"text": "hello"}')
            assert await one.get_message() == await other.get_message() == '{"text": "hello"}'
