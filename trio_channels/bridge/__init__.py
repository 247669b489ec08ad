"""The bridge between asgiref and Trio: Django's functions for asyncio work inside a Trio run too.

:func:`install` replaces a handful of functions of asgiref and Django; :mod:`trio_channels.bridge.patches` lists them.
Each replacement first checks whether the current *thread* is in a Trio run at this moment. If not, it calls the
original. So asyncio in the same process, or even in the same thread (Trio's guest mode), is not affected.

The Django application ``trio_channels`` installs the bridge, unless ``TRIO_CHANNELS["ASGIREF_BRIDGE"]`` is False.
"""

from __future__ import annotations

import sys

from django.core.signals import got_request_exception

from .compatibility import check

__all__ = ["install", "installed"]


def install() -> None:
    """Install the bridge in this process. Idempotent.

    Raises:
        BridgeError: the bridge does not support this version of asgiref or Django; nothing is replaced.
    """
    if installed():
        return
    check()
    from .patches import PATCHES, explain_to_django  # after the check: its imports fail with an unsupported version

    for patch in PATCHES:
        patch.apply()
    got_request_exception.connect(explain_to_django, dispatch_uid="trio_channels")


def installed() -> bool:
    """Whether the bridge is installed in this process."""
    patches = sys.modules.get(f"{__name__}.patches")
    return patches is not None and all(patch.applied for patch in patches.PATCHES)
