"""The command line, and hypercorn's configuration out of it and a file."""

from __future__ import annotations

import argparse
import difflib
import sys
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hypercorn.config import Config

from .. import __version__
from .._limits import COUNT
from ..exceptions import ConfigurationError
from .pin import check_system

#: Options of the command line that have hypercorn's own name, and go before the file.
_OVERRIDES = ("bind", "workers", "certfile", "keyfile", "accesslog", "errorlog", "loglevel")


@dataclass(frozen=True)
class Options:
    """What was asked for.

    Args:
        application: ``module:attribute``.
        config: hypercorn's, from the file, and what the command line says instead.
        workers: processes that serve.
        arguments: the command line as it was, to start workers with.
        pin: whether each process that serves keeps to one core.
    """

    application: str
    config: Config
    workers: int
    arguments: tuple[str, ...]
    pin: bool = False


def parse(arguments: Sequence[str] | None = None) -> Options:
    """Read the command line; ends the process with 2 and a message if it is wrong."""
    given = tuple(sys.argv[1:] if arguments is None else arguments)
    parser, serve = _parsers()
    wanted = parser.parse_args(given)
    try:
        config = _load(wanted.config)
        for name in _OVERRIDES:
            value = getattr(wanted, name)
            if value is not None:
                setattr(config, name, value)
        _check(config)
        if wanted.pin:
            check_system()
    except ConfigurationError as error:
        serve.error(str(error))
    config.application_path = wanted.application
    config.worker_class = "trio"
    return Options(wanted.application, config, config.workers, given, wanted.pin)


def _parsers() -> tuple[argparse.ArgumentParser, argparse.ArgumentParser]:
    parser = argparse.ArgumentParser("trio-channels", description="Serve ASGI applications on Trio.")
    parser.add_argument("--version", action="version", version=f"trio-channels {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    serve = commands.add_parser("serve", help="serve an ASGI application", description=_load.__doc__)
    serve.add_argument("application", metavar="APP", help="module:attribute, as mysite.asgi:application")
    serve.add_argument("-w", "--workers", type=int, help="processes that serve (1)")
    serve.add_argument("--pin", action="store_true", help="keep each process that serves on one core (no)")
    serve.add_argument(
        "-b",
        "--bind",
        action="append",
        help="host:port, [address]:port, unix:path or fd://number; may be given several times (127.0.0.1:8000)",
    )
    serve.add_argument("-c", "--config", help="hypercorn's options: a TOML file, file:PYTHON_FILE or python:MODULE")
    serve.add_argument("--certfile", help="the TLS certificate")
    serve.add_argument("--keyfile", help="the TLS certificate's key")
    serve.add_argument("--access-log", dest="accesslog", metavar="FILE", help="a file, or - for stdout (none)")
    serve.add_argument("--error-log", dest="errorlog", metavar="FILE", help="a file, or - for stderr (-)")
    serve.add_argument("--log-level", dest="loglevel", metavar="LEVEL", help="of the error log (INFO)")
    return parser, serve


def _load(place: str | None) -> Config:
    """Serve an ASGI application on Trio. Every option of hypercorn can be given in a file, see --config."""
    if place is None:
        return Config()
    try:
        if place.startswith("python:"):
            return Config.from_object(place.removeprefix("python:"))
        if place.startswith("file:"):
            return Config.from_pyfile(place.removeprefix("file:"))
        return _from_toml(place)
    except (OSError, ImportError, SyntaxError, AttributeError, tomllib.TOMLDecodeError) as error:
        raise ConfigurationError(f"the configuration {place!r} cannot be read: {error}") from error


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
    if config.use_reloader:
        raise ConfigurationError("use_reloader is not for this command; for development use manage.py runserver")
    if bool(config.certfile) != bool(config.keyfile):
        raise ConfigurationError("certfile and keyfile are needed together")
