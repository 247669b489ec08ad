"""Exit codes, beside 0 after an orderly end and argparse's 2."""

from __future__ import annotations

#: A process that had served, and failed.
CRASHED = 1
#: A process that never came to serve: starting it again will not help.
CANNOT_START = 3
