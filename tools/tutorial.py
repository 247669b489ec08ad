#!/usr/bin/env python
"""Make the project of the tutorial, as it is after a part: python tools/tutorial.py PART FOLDER.

It follows the pages of ``docs/tutorial/``: it copies each file that they show, and runs the commands that change the
project. It leaves out those that install or start something.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

DOCS = Path(__file__).resolve().parents[1] / "docs"
SNIPPETS = DOCS / "snippets" / "tutorial"
PARTS = ("chat", "users", "outages", "processes", "tasks", "topics")
#: The commands of the pages that are run.
RUN = (
    "django-admin ",
    *(f"python manage.py {name}" for name in ("startapp", "makemigrations", "migrate")),
    "mkdir -p ",
    "rm ",
)


def steps(part: str) -> Iterator[tuple[str, str]]:
    """What a page has its reader do, in order: ("file", its path below the part's folder), or ("command", the line)."""
    page = (DOCS / "tutorial" / f"{part}.md").read_text()
    folder = re.escape(f"{PARTS.index(part) + 1}_{part}")
    pattern = rf"^```\{{literalinclude\}} /snippets/tutorial/{folder}/(?P<file>\S+)$|^\$ (?P<command>.+)$"
    for found in re.finditer(pattern, page, re.MULTILINE):
        kind = found.lastgroup or ""
        yield kind, found[kind]


def run(line: str, folder: Path) -> None:
    """Run a command of a page, with this Python."""
    program, *arguments = shlex.split(line)
    ours = {"python": [sys.executable], "django-admin": [sys.executable, "-m", "django"]}
    environment = {name: value for name, value in os.environ.items() if name != "DJANGO_SETTINGS_MODULE"}
    subprocess.run([*ours.get(program, [program]), *arguments], cwd=folder, env=environment, check=True)


def follow(part: str, folder: Path) -> None:
    """Do everything that a page says, in the folder with the project of the part before."""
    for kind, text in steps(part):
        if kind == "file":
            target = folder / text
            target.parent.mkdir(exist_ok=True)
            target.write_bytes((SNIPPETS / f"{PARTS.index(part) + 1}_{part}" / text).read_bytes())
        elif text.startswith(RUN):
            run(text, folder)


def main(arguments: list[str]) -> int:
    """Make the project; returns the exit code."""
    numbers = [str(number + 1) for number in range(len(PARTS))]
    if len(arguments) != 2 or arguments[0] not in numbers:
        print(
            f"expected a part, 1 to {len(PARTS)}, and a new folder: python tools/tutorial.py 3 mychat", file=sys.stderr
        )
        return 2
    folder = Path(arguments[1])
    if folder.exists():
        print(f"expected a new folder; {folder} exists", file=sys.stderr)
        return 2
    folder.mkdir(parents=True)
    for part in PARTS[: int(arguments[0])]:
        follow(part, folder)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
