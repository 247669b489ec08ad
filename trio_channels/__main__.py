"""``python -m trio_channels``: the same as the command ``trio-channels``."""

from __future__ import annotations

import sys

from .runner import main

if __name__ == "__main__":
    sys.exit(main())
