"""Reports code that blocks the event loop: while it runs, no other task of the process does.

The rules:

1. Trio tells when a step of a task begins and ends. A thread looks whether one lasts too long, and reports its stack.
2. Each place is reported once a minute at most.
3. A debugger blocks the loop on purpose: it is not reported.
"""

from __future__ import annotations

import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

import trio

#: Seconds between two reports of one place.
EVERY = 60.0

#: Packages whose frames are left out of a report, if there are others.
_FRAMEWORK = ("trio", "trio_channels", "hypercorn", "outcome", "asgiref")
_DEBUGGERS = ("bdb", "pdb", "pydevd", "debugpy")

#: Gets the seconds so far, the name of the task, and the stack as text.
Report = Callable[[float, str, str], object]


class _Steps(trio.abc.Instrument):
    """The step that the loop is in: when it began, and its task."""

    def __init__(self) -> None:
        self.current: tuple[float, trio.lowlevel.Task] | None = None

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self.current = (time.monotonic(), task)

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        self.current = None


@contextmanager
def reporting(limit: float, report: Report) -> Iterator[None]:
    """In the block, report steps of this Trio run that take longer than `limit` seconds, from another thread."""
    steps, over = _Steps(), threading.Event()
    watcher = threading.Thread(
        target=_watch, args=(steps, threading.get_ident(), limit, report, over), name="trio-channels loop", daemon=True
    )
    trio.lowlevel.add_instrument(steps)
    watcher.start()
    try:
        yield
    finally:
        trio.lowlevel.remove_instrument(steps)
        over.set()
        watcher.join()


def _watch(steps: _Steps, thread: int, limit: float, report: Report, over: threading.Event) -> None:
    seen: tuple[float, trio.lowlevel.Task] | None = None
    reported: dict[tuple[str, int], float] = {}
    while not over.wait(limit / 2):
        step = steps.current
        if step is not None and step is not seen and time.monotonic() - step[0] >= limit:
            seen = step
            _look(steps, step, thread, report, reported)


def _look(
    steps: _Steps,
    step: tuple[float, trio.lowlevel.Task],
    thread: int,
    report: Report,
    reported: dict[tuple[str, int], float],
) -> None:
    """Report a step that takes too long."""
    frames = _frames(sys._current_frames()[thread])
    if steps.current is not step or not frames:
        return  # it has ended meanwhile, so that the frames may be those of another one
    place = (frames[-1].f_code.co_filename, frames[-1].f_lineno)
    now = time.monotonic()
    if now - reported.get(place, -EVERY) >= EVERY:
        reported[place] = now
        report(now - step[0], step[1].name, _text(frames))


def _frames(innermost: FrameType) -> list[FrameType]:
    """The frames of the task, the outermost first, without the framework's; none if a debugger is among them."""
    stack = [frame for frame, _ in traceback.walk_stack(innermost)]
    packages = [str(frame.f_globals.get("__name__", "")).partition(".")[0] for frame in stack]
    if not set(_DEBUGGERS).isdisjoint(packages):
        return []
    # Behind Trio's loop there is the code that started the run.
    end = next((place for place, frame in enumerate(stack) if frame.f_code.co_name == "unrolled_run"), len(stack))
    task = list(zip(stack[:end], packages[:end], strict=True))
    own = [frame for frame, package in task if package not in _FRAMEWORK]
    return (own or [frame for frame, _ in task])[::-1]


def _text(frames: list[FrameType]) -> str:
    summary = traceback.StackSummary.extract((frame, frame.f_lineno) for frame in frames)
    return "".join(summary.format()).rstrip("\n")
