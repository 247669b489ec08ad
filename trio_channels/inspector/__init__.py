"""The inspector: what is connected where, in all processes.

It is a Django app. With ``trio_channels.inspector`` in ``INSTALLED_APPS``, each process answers the questions of
``manage.py channels``, of the page in Django's admin, and of :func:`overview`. Otherwise nothing runs, and nothing is
kept.
"""

from __future__ import annotations

from .asking import Overview, Silent, overview
from .queues import Letter, Queue
from .report import Connection, Group, Introduction, Question, Report, WorkerReport

__all__ = [
    "Connection",
    "Group",
    "Introduction",
    "Letter",
    "Overview",
    "Question",
    "Queue",
    "Report",
    "Silent",
    "WorkerReport",
    "overview",
]
