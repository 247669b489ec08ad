"""The command ``trio-channels serve``: hypercorn on Trio, hardened, in one process or in several.

With ``--workers 1`` the main process serves. With more, a parent process opens the listening sockets, and starts,
watches and stops child processes. Each child is the same command again, and serves on the sockets that it inherits. So
one code path serves, and a child that crashes does not affect the others.

The rules:

- SIGTERM or SIGINT drains: stop accepting, close every WebSocket with 1012, let requests finish, cancel the rest after
  the grace period, exit with 0. A second signal ends the process at once, by that signal.
- A parent tells its children to drain by closing a socket pair, their *lifeline*. The lifeline also closes when the
  parent dies, so no child outlives its parent by more than a drain.
- A child that crashes is started again, after a growing delay, with a line in the log.
- A process that cannot start logs the reason and exits with :data:`CANNOT_START`. It is not tried again.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

from ..exceptions import CannotStart
from ..server.access_log import use_our_log
from ..server.lifespan import CANNOT_START, CRASHED
from .cli import parse
from .lifeline import inherited
from .serving import run_child, run_single
from .supervisor import run_parent

__all__ = ["CANNOT_START", "CRASHED", "main"]

logger = logging.getLogger("trio_channels.runner")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code: 0 after an orderly end, CRASHED or CANNOT_START (SystemExit: 2)."""
    options = parse(arguments)
    try:
        inheritance = inherited()
        if inheritance is not None:
            return run_child(options, inheritance)
        return run_parent(options) if options.workers > 1 else run_single(options)
    except CannotStart as error:
        use_our_log(options.config)
        logger.critical("cannot start: %s", error, exc_info=error.__cause__)
        return CANNOT_START
