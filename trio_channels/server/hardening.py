"""The versions of hypercorn that are served with, and the hardening of its own Trio worker."""

from __future__ import annotations

import logging
import sys
from importlib.metadata import version
from typing import Any

from .. import _conf
from .._asgi.foreign import refuse_foreign

logger = logging.getLogger("trio_channels.server")

#: The series of hypercorn that the tests pass on. Its private classes are subclassed, and may change in the next one.
SUPPORTED = "0.18"

#: Whether this process has said that it serves unhardened.
_warned = False


def harden_hypercorn() -> None:
    """Harden hypercorn's Trio worker if it is imported in this process; called for each application that is made."""
    if "hypercorn.trio.run" not in sys.modules:
        return
    if _conf.get("HARDEN_HYPERCORN"):
        install()
    else:
        _warn_when_it_serves()


def install() -> bool:
    """Have hypercorn's Trio worker, in this process, serve with the connections of trio-channels.

    Returns:
        Whether it does now. On an unsupported version of hypercorn it does not: a warning is logged, once in a process,
        and hypercorn stays as it is.
    """
    import hypercorn.trio
    import hypercorn.trio.run

    from .run import hardened_worker, hardened_worker_serve

    if problem := version_problem():
        _warn_once(problem)
        return False
    hypercorn.trio.run.worker_serve = hardened_worker  # of hypercorn's command
    hypercorn.trio.worker_serve = hardened_worker_serve  # of hypercorn.trio.serve()
    return True


def version_problem() -> str | None:
    """Why the installed version of hypercorn cannot be served with, and what to do; None if it can."""
    found = version("hypercorn")
    if found == SUPPORTED or found.startswith(f"{SUPPORTED}."):
        return None
    return f"expected hypercorn {SUPPORTED}.*, got {found}: install it with pip install 'hypercorn~={SUPPORTED}.0'"


def _warn_when_it_serves() -> None:
    """Have hypercorn's worker log the warning when it serves: the process may as well use our own ``serve()``."""
    import hypercorn.trio
    import hypercorn.trio.run

    unhardened = hypercorn.trio.run.worker_serve
    if hasattr(unhardened, "__wrapped__"):
        return

    async def worker_serve(app: Any, *args: Any, **options: Any) -> None:
        refuse_foreign(app)
        _warn_once("TRIO_CHANNELS['HARDEN_HYPERCORN'] is False: remove it to harden them")
        await unhardened(app, *args, **options)

    worker_serve.__wrapped__ = unhardened  # type: ignore[attr-defined]
    hypercorn.trio.run.worker_serve = hypercorn.trio.worker_serve = worker_serve


def _warn_once(reason: str) -> None:
    global _warned
    if not _warned:
        _warned = True
        logger.warning("hypercorn's connections are not hardened in this process: %s", reason)
