"""The command line of the upgrade."""

from __future__ import annotations

import argparse
import difflib
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from .. import __version__

try:
    import libcst
except ModuleNotFoundError:
    sys.exit("the upgrade needs libcst, which is not installed: pip install 'trio-channels[upgrade]'")

from .decisions import Decision
from .files import configuration, python_files, write_all
from .source import upgrade

_EPILOG = """\
Without --write nothing is changed: the differences are shown. Lines behind "decide:" need a person; they name the
file, the line of the changed file, and the way to do it with trio-channels. Exit code: 0; with --check 1 if anything
would change or needs a decision; 2 if a file cannot be read, parsed or written.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m trio_channels.upgrade",
        description="Rewrite a project that was written for Channels.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("paths", nargs="+", type=Path, metavar="PATH", help="a folder, or a Python file")
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--write", action="store_true", help="change the files")
    how.add_argument("--check", action="store_true", help="show only which files would change; for CI")
    parser.add_argument("--version", action="version", version=__version__)
    options = parser.parse_args(arguments)
    for path in options.paths:
        if not path.exists():
            parser.error(f"{path} does not exist")

    sources: dict[Path, bytes] = {}
    failures = []
    decisions: list[tuple[Path, Decision]] = []
    for path in (file for given in options.paths for file in python_files(given)):
        try:
            before = path.read_bytes()
            result = upgrade(before)
        except (OSError, UnicodeDecodeError, LookupError, SyntaxError, libcst.ParserSyntaxError) as error:
            failures.append(f"{path}: not changed: {_first_line(error)}")
            continue
        decisions += [(path, decision) for decision in result.decisions]
        if result.source != before:
            sources[path] = result.source
            if not options.check:
                sys.stdout.writelines(_difference(path, before, result.source))
    decisions += [found for given in options.paths for found in configuration(given)]
    if options.write:
        try:
            write_all(sources)
        except OSError as error:
            print(f"nothing was written: {error}", file=sys.stderr)
            return 2
    changed = "changed" if options.write else "to change"
    for path in sources:
        print(f"{changed}: {path}")
    for path, decision in decisions:
        print(f"decide: {path}:{decision}")
    for failure in failures:
        print(failure, file=sys.stderr)
    print(f"{len(sources)} files {changed}, {len(decisions)} lines to decide, {len(failures)} files not read")
    if failures:
        return 2
    return 1 if options.check and (sources or decisions) else 0


def _first_line(error: Exception) -> str:
    if isinstance(error, libcst.ParserSyntaxError):
        return f"it is not valid Python: line {error.editor_line}, column {error.editor_column}"
    return str(error).partition("\n")[0]


def _difference(path: Path, before: bytes, after: bytes) -> Iterator[str]:
    old, new = (source.decode("utf-8", errors="replace").splitlines(keepends=True) for source in (before, after))
    for line in difflib.unified_diff(old, new, str(path), str(path)):
        yield line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n"


if __name__ == "__main__":
    sys.exit(main())
