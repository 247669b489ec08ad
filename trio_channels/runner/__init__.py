"""The command ``trio-channels serve``: hypercorn on Trio, hardened, in one process or in several.

One process serves in the main process, without a parent. With more, a parent opens the listening sockets, and starts,
watches and stops *workers*: each is the same command again, serving in one process on the sockets that it inherits. So
there is one path of code that serves, and a worker that crashes takes nothing with it.

The rules:

- SIGTERM or SIGINT: stop accepting, tell every WebSocket 1012, let requests finish, cancel what is left when the grace
  is over, exit with 0. A second signal ends the process at once, by that signal.
- A parent tells its workers to stop by closing a socket pair, their *lifeline*. It closes too when the parent dies: no
  worker outlives its parent by more than a drain.
- A worker that crashes is started again, after a pause that grows, with a line in the log.
- What cannot start says why, and ends with :data:`CANNOT_START`; it is not tried again.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

from ..exceptions import CannotStart
from .cli import CANNOT_START, CRASHED, Options, parse
from .lifeline import inherited
from .log import open_log
from .serving import run_single, run_worker
from .supervisor import run_parent

__all__ = ["CANNOT_START", "CRASHED", "main"]

logger = logging.getLogger("trio_channels.runner")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: instead of the process' own, without the program's name.

    Returns:
        The process' exit code: 0 after an orderly end, 1 after a crash, 2 for a wrong command line (by ``SystemExit``),
        3 if it could not start.
    """
    options = parse(arguments)
    try:
        return _run(options)
    except CannotStart as error:
        open_log(options.config)
        logger.critical("cannot start: %s", error, exc_info=error.__cause__)
        return CANNOT_START


def _run(options: Options) -> int:
    place = inherited()
    if place is not None:
        return run_worker(options, place)
    return run_parent(options) if options.workers > 1 else run_single(options)
