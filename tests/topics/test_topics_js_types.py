"""The types of ``topics.js``, by the compiler of TypeScript, which npm installs when the tests run."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from .test_topics_js import FALLBACK, JS, MODULE

VERSION = "5.9.3"
OPTIONS = ["--noEmit", "--target", "es2022", "--lib", "es2023,dom,dom.iterable", "--module", "nodenext"]

pytestmark = [
    pytest.mark.clients,
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("npm") is None, reason="needs node and npm, for TypeScript"),
]


@pytest.fixture(scope="module")
def tsc(request: pytest.FixtureRequest) -> list[str]:
    assert request.config.cache is not None
    folder = request.config.cache.mkdir(f"typescript-{VERSION}")
    program = folder / "node_modules" / "typescript" / "bin" / "tsc"
    if not program.exists():
        options = ["--no-audit", "--no-fund", "--ignore-scripts", "--prefix", str(folder)]
        command = ["npm", "install", *options, f"typescript@{VERSION}"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    return ["node", str(program), *OPTIONS]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The module with its types, and a copy without them."""
    (tmp_path / "package.json").write_text('{"type": "module"}')
    (tmp_path / "module").mkdir()
    for module in (MODULE, FALLBACK):
        for file in (module, module.with_suffix(".d.ts")):
            shutil.copy(file, tmp_path)
        shutil.copy(module, tmp_path / "module")
    shutil.copy(JS / "types.ts", tmp_path)
    return tmp_path


def errors(command: list[str], folder: Path) -> str:
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False).stdout


def test_types_are_strict_and_those_of_the_module(tsc: list[str], folder: Path) -> None:
    assert errors([*tsc, "--strict", "--noImplicitAny", "false", "--allowJs", "types.ts"], folder) == ""


def test_types_need_no_other_option(tsc: list[str], folder: Path) -> None:
    (folder / "page.ts").write_text('import { Socket } from "./topics.js";\nnew Socket("/socket").connect();\n')
    assert errors([*tsc, "--strict", "page.ts", "topics.d.ts"], folder) == ""


def test_module_has_no_type_errors(tsc: list[str], folder: Path) -> None:
    assert errors([*tsc, "--allowJs", "--checkJs", "module/topics.js", "module/topics-sse.js"], folder) == ""
