"""Hardening the hypercorn command line: its worker is given our ``worker_serve``."""

from __future__ import annotations

import logging
from importlib.metadata import version

logger = logging.getLogger("trio_channels.server")

#: The versions that the tests of this package have passed on. What is replaced is none of hypercorn's public interface.
TESTED = ("0.18.0",)


def install() -> bool:
    """Have hypercorn's Trio worker, in this process, serve with the connections of trio-channels.

    Returns:
        Whether it does now. On a version of hypercorn that this was not tested with it does not: a warning is logged,
        and hypercorn stays as it is.
    """
    import hypercorn.trio
    import hypercorn.trio.run

    from .run import hardened_worker_serve

    if hypercorn.trio.run.worker_serve is hardened_worker_serve:
        return True
    found = version("hypercorn")
    if found not in TESTED:
        logger.warning(
            "hypercorn %s is served as it is, with the defects that trio_channels.server answers: tested with %s. "
            "Install one of those, or set TRIO_CHANNELS['HARDEN_HYPERCORN'] = False to silence this",
            found,
            ", ".join(TESTED),
        )
        return False
    hypercorn.trio.run.worker_serve = hypercorn.trio.worker_serve = hardened_worker_serve
    return True
