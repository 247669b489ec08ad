"""The command line: options, hypercorn's configuration, exit codes."""

from __future__ import annotations

import argparse
import difflib
import os
import sys
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from hypercorn.config import Config

from .. import __version__
from .._asgi.mounting import check
from .._limits import COUNT
from ..exceptions import ConfigurationError
from ..new import make_project

#: Options of the command line that override hypercorn's options of the same name.
_OVERRIDES = ("bind", "workers", "root_path", "certfile", "keyfile", "accesslog", "errorlog", "loglevel")


@dataclass(frozen=True)
class Options:
    """The parsed command line."""

    application: str
    config: Config
    workers: int
    arguments: tuple[str, ...]


def parse(arguments: Sequence[str] | None = None) -> Options:
    """Read the command line.

    Raises:
        SystemExit: with code 2 and a message, if it is wrong; with 0 after a command that does not serve.
    """
    given = tuple(sys.argv[1:] if arguments is None else arguments)
    parser, serve, new = _parsers()
    wanted = parser.parse_args(given)
    if wanted.command == "new":
        _make_project(new, wanted.name, wanted.directory)
    try:
        config = _load(wanted.config)
        for name in _OVERRIDES:
            value = getattr(wanted, name)
            if value is not None:
                setattr(config, name, value)
        _check(config)
    except ConfigurationError as error:
        serve.error(str(error))
    config.application_path = wanted.application
    config.worker_class = "trio"
    return Options(wanted.application, config, config.workers, given)


def _make_project(parser: argparse.ArgumentParser, name: str, directory: Path | None) -> NoReturn:
    try:
        place = make_project(name, directory)
    except ConfigurationError as error:
        parser.error(str(error))
    sys.stdout.write(f"{place} is made; {place / 'README.md'} says how to run it\n")
    sys.exit(0)


def _parsers() -> tuple[argparse.ArgumentParser, ...]:
    parser = argparse.ArgumentParser("trio-channels", description="Serve ASGI applications on Trio.")
    parser.add_argument("--version", action="version", version=f"trio-channels {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND", dest="command")
    serve = commands.add_parser("serve", help="serve an ASGI application", description=_load.__doc__)
    serve.add_argument("application", metavar="APP", help="module:attribute, such as mysite.asgi:application")
    serve.add_argument("-w", "--workers", type=int, help="the number of processes that serve (1)")
    serve.add_argument(
        "-b",
        "--bind",
        action="append",
        help="host:port, [address]:port, unix:path or fd://number; repeatable (127.0.0.1:8000)",
    )
    serve.add_argument("-c", "--config", help="a file of hypercorn's options: FILE.toml, file:FILE.py or python:MODULE")
    serve.add_argument("--root-path", metavar="PATH", help="the mount point of the site, such as /app")
    serve.add_argument("--certfile", help="the TLS certificate")
    serve.add_argument("--keyfile", help="the key of the TLS certificate")
    serve.add_argument("--access-log", dest="accesslog", metavar="FILE", help="a file, or - for stdout (none)")
    serve.add_argument("--error-log", dest="errorlog", metavar="FILE", help="a file, or - for stderr (-)")
    serve.add_argument("--log-level", dest="loglevel", metavar="LEVEL", help="the level of the error log (INFO)")
    new = commands.add_parser("new", help="make a project with a chat, users and tests")
    new.add_argument("name", metavar="NAME", help="the project's name, such as mysite")
    new.add_argument("directory", metavar="DIRECTORY", nargs="?", type=Path, help="a new or empty folder (./NAME)")
    return parser, serve, new


def _load(place: str | None) -> Config:
    """Serve an ASGI application on Trio. A file can hold every option of hypercorn, see --config."""
    if place is None:
        return Config()
    try:
        if place.startswith("python:"):
            return Config.from_object(place.removeprefix("python:"))
        if place.startswith("file:"):
            return Config.from_pyfile(place.removeprefix("file:"))
        return _from_toml(place)
    except (OSError, ImportError, SyntaxError, AttributeError, tomllib.TOMLDecodeError) as error:
        raise ConfigurationError(f"cannot read the configuration {place!r}: {error}") from error


def _from_toml(place: str) -> Config:
    with Path(place).open("rb") as file:
        values: dict[str, Any] = tomllib.load(file)
    for name in values:
        if not hasattr(Config, name) and name != "cert_reqs":
            known = [known for known in dir(Config) if not known.startswith("_")]
            near = difflib.get_close_matches(name, known, n=1, cutoff=0.0)[0]
            raise ConfigurationError(f"{place}: hypercorn has no option {name!r}; did you mean {near!r}?")
    return Config.from_mapping(values)


def _check(config: Config) -> None:
    COUNT.require("workers", config.workers)
    if config.workers > 1 and not hasattr(os, "fork"):
        raise ConfigurationError(
            f"several processes (workers = {config.workers}) need Linux, macOS or another POSIX system; use 1 here"
        )
    check(config.root_path)
    if config.use_reloader:
        raise ConfigurationError("this command has no use_reloader; use manage.py runserver, which reloads")
    if bool(config.certfile) != bool(config.keyfile):
        given, missing = ("certfile", "keyfile") if config.certfile else ("keyfile", "certfile")
        raise ConfigurationError(f"TLS needs both certfile and keyfile; got only {given}: add {missing}")
