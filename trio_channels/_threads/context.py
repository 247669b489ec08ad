"""Context variables across threads: copied in, and changes copied back.

Django keeps the language, the URLconf and more in asgiref's ``Local``. From asgiref 3.12 on its data is tagged with the
thread that owns it, and must be re-tagged on an intended thread hop.
"""

from __future__ import annotations

import contextvars

try:
    from asgiref.local import _rehome, _Storage
except ImportError:  # asgiref before 3.12 does not tag
    _rehome, _Storage = None, ()  # type: ignore[assignment,misc]


def take_over() -> None:
    """Make asgiref's data in the current context belong to the current thread."""
    for variable, value in contextvars.copy_context().items():
        if isinstance(value, _Storage):  # few are
            variable.set(_rehome(value))


def adopt(context: contextvars.Context) -> None:
    """Set every variable of `context` to the same value in the current context."""
    for variable, value in context.items():
        if variable.get(_MISSING) is not value:
            variable.set(_rehome(value) if isinstance(value, _Storage) else value)


def adopt_changes(context: contextvars.Context, before: contextvars.Context) -> None:
    """Set the variables that changed between `before` and `context`, a copy of it, in the current context."""
    for variable, value in context.items():
        if before.get(variable, _MISSING) is not value:
            variable.set(_rehome(value) if isinstance(value, _Storage) else value)


_MISSING = object()
