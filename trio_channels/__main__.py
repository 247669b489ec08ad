"""``python -m trio_channels``: the same as the command ``trio-channels``."""

import sys

from .runner import main

if __name__ == "__main__":
    sys.exit(main())
