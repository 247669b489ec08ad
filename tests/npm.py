"""Packages of npm, for tests with third-party code."""

from __future__ import annotations

import shutil
import subprocess
from hashlib import sha256
from pathlib import Path

import pytest


def installed(config: pytest.Config, *packages: str) -> Path:
    """A folder with these packages in its ``node_modules``, kept for the next run."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        pytest.skip(f"needs node and npm, for {', '.join(packages)}")
    assert config.cache is not None
    folder: Path = config.cache.mkdir(f"npm-{sha256(' '.join(packages).encode()).hexdigest()[:12]}")
    complete = folder / "complete"
    if not complete.exists():
        options = ["--no-audit", "--no-fund", "--ignore-scripts", "--prefix", str(folder)]
        done = subprocess.run(["npm", "install", *options, *packages], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        complete.touch()
    return folder
