"""The limit of open files."""

from __future__ import annotations

import resource


def raise_limit() -> None:
    """Allow this process, and those that it starts, as many open files as the system does."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
