"""The bridge between asgiref and Trio: what Django has for asyncio works inside a Trio run too.

:func:`install` replaces a handful of functions of asgiref and Django, which :mod:`trio_channels.bridge.patches` lists.
Each replacement asks first whether the current *thread* is in a Trio run at this moment, and otherwise does what was
there before: asyncio in the same process, or even in the same thread (Trio's guest mode), is untouched.

It is installed by the Django application ``trio_channels`` unless ``TRIO_CHANNELS["ASGIREF_BRIDGE"]`` is False.
"""

from __future__ import annotations

import sys

from .compatibility import check

__all__ = ["install", "installed"]


def install() -> None:
    """Install the bridge in this process; idempotent.

    Raises:
        BridgeError: this asgiref or Django is not one that the bridge fits; nothing has been replaced then.
    """
    if installed():
        return
    check()
    from .patches import POINTS  # it imports what may be missing before the check

    for point in POINTS:
        point.replace()


def installed() -> bool:
    """Whether the bridge is installed in this process."""
    points = sys.modules.get(f"{__name__}.patches")
    return points is not None and all(point.replaced for point in points.POINTS)
