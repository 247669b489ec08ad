"""Collects the tests of Django's tasks only on versions of Django that have tasks."""

from __future__ import annotations

import django

collect_ignore = [] if django.VERSION >= (6, 0) else ["test_tasks.py"]
