"""The application, by its name."""

from __future__ import annotations

import importlib
import sys
from functools import reduce
from pathlib import Path
from typing import Any, cast

from .._asgi.protocol import ASGIApplication
from ..exceptions import CannotStart

#: What Django's ``asgi.py`` calls it.
_DEFAULT = "application"


def load(name: str) -> ASGIApplication:
    """Import ``module:attribute``, with the working directory on the path as ``manage.py`` has it.

    Raises:
        CannotStart: there is no such module or attribute, or importing it failed; then with the exception as its cause.
    """
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    module_name, colon, attribute = name.partition(":")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is not None and f"{module_name}.".startswith(f"{error.name}."):
            why = f"there is no module {error.name!r}, of {name!r}, in {here} or on the path"
            hint = "" if colon else "; expected module:attribute, as 'mysite.asgi:application'"
            raise CannotStart(why + hint) from None
        raise CannotStart(f"importing {module_name!r} failed") from error
    except Exception as error:
        raise CannotStart(f"importing {module_name!r} failed") from error
    try:
        application: Any = reduce(getattr, (attribute or _DEFAULT).split("."), cast(Any, module))
    except AttributeError as error:
        raise CannotStart(f"{name!r}: {error}; expected module:attribute") from None
    if not callable(application):
        raise CannotStart(f"{name!r} must be an ASGI application; got {type(application).__name__}")
    return cast(ASGIApplication, application)
