"""Files of ``manage.py topics`` are valid for the tools that read them: the parser of AsyncAPI, and TypeScript."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command

from ..npm import installed

pytestmark = [pytest.mark.clients, pytest.mark.slow]

USAGE = Path(__file__).with_name("usage.ts")
PARSE = """
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
const { Parser } = createRequire(process.argv[1] + "/")("@asyncapi/parser");
const { document, diagnostics } = await new Parser().parse(readFileSync(process.argv[2], "utf8"));
const channel = document?.channels().get("Board");
console.log(JSON.stringify({
  errors: diagnostics.filter(({ severity }) => severity < 2).map(({ message, path }) => [message, path]),
  events: channel?.messages().all().map((message) => message.name()),
  operations: document?.operations().all().length,
}));
"""


@pytest.fixture
def write(settings: Any, tmp_path: Path) -> Any:
    """Writes the topics of described.py to a file."""
    settings.ASGI_APPLICATION = "tests.topics.described.application"

    def run(form: str, name: str) -> Path:
        call_command("topics", form, "--output", str(tmp_path / name))
        return tmp_path / name

    return run


def test_parser_of_asyncapi_finds_no_error(write: Any, request: pytest.FixtureRequest) -> None:
    folder, file = installed(request.config, "@asyncapi/parser@3.6.0"), write("--asyncapi", "topics.json")
    command = ["node", "--input-type=module", "-e", PARSE, str(folder), str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["errors"] == []
    assert {"phx_join", "phx_reply", "draw", "drawn", "presence_diff"} <= set(found["events"])
    assert found["operations"] == 15


def test_strict_typescript_takes_the_types(write: Any, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    folder = installed(request.config, "typescript@5.9.3")
    write("--typescript", "topics.ts")
    shutil.copy(USAGE, tmp_path)
    options = ["--strict", "--noEmit", "--target", "es2022", "--lib", "es2022,dom"]
    command = ["node", str(folder / "node_modules" / "typescript" / "bin" / "tsc"), *options, USAGE.name]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert (done.stdout, done.returncode) == ("", 0)
