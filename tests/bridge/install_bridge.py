"""A pytest plugin that installs the bridge: for asgiref's own tests, which the nox session `bridge` runs."""

from __future__ import annotations

from trio_channels import bridge

bridge.install()
