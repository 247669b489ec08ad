"""What only newer versions of Django have is collected only there."""

from __future__ import annotations

import django

collect_ignore = [] if django.VERSION >= (6, 0) else ["test_tasks.py"]
