"""Whether hypercorn is to be hardened: a question for each application that is made, and cheap where it is not."""

from __future__ import annotations

import sys

from . import _conf


def harden_hypercorn() -> None:
    """Install :mod:`trio_channels.server` if hypercorn's Trio worker is importing the application, and if wanted."""
    if _imported_by_the_trio_worker() and _conf.get("HARDEN_HYPERCORN"):
        from .server import install

        install()


def _imported_by_the_trio_worker() -> bool:
    run = sys.modules.get("hypercorn.trio.run")
    code = getattr(getattr(run, "trio_worker", None), "__code__", None)
    frame = sys._getframe() if code is not None else None
    while frame is not None:
        if frame.f_code is code:
            return True
        frame = frame.f_back
    return False
