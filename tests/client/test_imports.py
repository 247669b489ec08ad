"""The client is light: a service that uses it needs no Django."""

from __future__ import annotations

import subprocess
import sys

SCRIPT = """
import sys, trio_channels.client
print(sorted({name.partition(".")[0] for name in sys.modules} & {"django", "hypercorn"}))
"""


def test_client_is_imported_without_django() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
