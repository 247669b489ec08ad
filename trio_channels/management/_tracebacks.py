"""Tracebacks for development: they begin with a frame of the project, and hide those of the framework."""

from __future__ import annotations

import logging
import sys
import sysconfig
import threading
import traceback
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType

import asgiref
import django
import hypercorn
import outcome
import trio
from django.core.management import CommandError

import trio_channels

from .._concurrency.exception_groups import bare

#: The loggers that log exceptions of a project.
LOGGERS = ("django.request", "hypercorn.error", "trio_channels.lifespan", "trio_channels.worker")


def _folders(*modules: object) -> tuple[str, ...]:
    return tuple(f"{Path(module.__file__).parent}/" for module in modules)  # type: ignore[attr-defined]


#: Frames that are never shown, unless there are no others.
_HIDDEN = ("<frozen ", *_folders(asgiref, hypercorn, outcome, trio, trio_channels))
#: Frames that are not shown before the first one of the project: other packages, and Python's own library.
_FOREIGN = tuple(f"{sysconfig.get_path(name)}/" for name in ("purelib", "platlib", "stdlib", "platstdlib"))
#: The same, if there is none of the project.
_DJANGO = _folders(django)


def short_traceback(error: BaseException) -> str:
    """The traceback of an error, with its causes and notes. A group of one exception is shown as that exception."""
    leaf = bare(error)
    shown = traceback.TracebackException.from_exception(leaf)
    if leaf is not error:
        notes = [note for one in _groups(error) for note in getattr(one, "__notes__", ())]
        shown.__notes__ = [*(shown.__notes__ or ()), *notes]
    remaining = [shown]
    while remaining:
        one = remaining.pop()
        one.stack = traceback.StackSummary.from_list(_frames(one))
        remaining += [inner for inner in (one.__cause__, one.__context__, *(one.exceptions or ())) if inner is not None]
    return "".join(shown.format()).rstrip("\n")


def _groups(error: BaseException) -> Iterable[BaseException]:
    """The groups around the only exception, from the inside out."""
    groups = []
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        groups.append(error)
        error = error.exceptions[0]
    return reversed(groups)


def _frames(shown: traceback.TracebackException) -> list[traceback.FrameSummary]:
    visible = [frame for frame in shown.stack if not frame.filename.startswith(_HIDDEN)]
    frames = _from_first_outside(_FOREIGN, visible)
    if frames or hasattr(shown, "lineno"):  # a SyntaxError, which names its place by itself
        return frames
    return _from_first_outside(_DJANGO, visible) or list(shown.stack)


def _from_first_outside(folders: tuple[str, ...], frames: list[traceback.FrameSummary]) -> list[traceback.FrameSummary]:
    for place, frame in enumerate(frames):
        if not frame.filename.startswith(folders):
            return frames[place:]
    return []


class ShortTracebacks(logging.Filter):
    """Gives records a short traceback as text. The exception in the record stays as it is, for tools."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Every record passes."""
        if record.exc_info and record.exc_info[1] is not None:
            record.exc_text = short_traceback(record.exc_info[1])
        return True


def shorten_tracebacks() -> None:
    """Have this process show short tracebacks: in its log, and of errors that nothing handles."""
    for name in LOGGERS:
        logger = logging.getLogger(name)
        if not any(isinstance(known, ShortTracebacks) for known in logger.filters):
            logger.addFilter(ShortTracebacks())
    sys.excepthook = _show
    threading.excepthook = _show_of_thread


def _show(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if isinstance(error, CommandError):
        sys.stderr.write(f"CommandError: {error}\n")
    elif isinstance(error, Exception):
        sys.stderr.write(f"{short_traceback(error)}\n")
    else:
        sys.__excepthook__(kind, error, trace)


def _show_of_thread(args: threading.ExceptHookArgs) -> None:
    if args.exc_value is not None and not issubclass(args.exc_type, SystemExit):
        _show(args.exc_type, args.exc_value, args.exc_traceback)
