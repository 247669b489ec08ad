"""Figures for Prometheus: connections, messages, handlers, channel layers, threads, processes.

They need ``prometheus_client``: ``pip install 'trio-channels[metrics]'``. Nothing is counted in a process that makes no
:class:`MetricsApplication`.
"""

from __future__ import annotations

from .application import MetricsApplication

__all__ = ["MetricsApplication"]
