"""The command ``trio-channels new``: makes a project with a chat, users and tests.

``template/`` is the project, in the form of ``django-admin startproject --template``: ``project_name`` in a path and
``{{ project_name }}`` in a file become the name, and the ending ``-tpl``, which keeps our own tools away, is removed.
Django's command is not used: it would import a module of the project's name to see whether there is one.
"""

from __future__ import annotations

import importlib.util
import keyword
import re
from pathlib import Path

from django.core.management.utils import get_random_secret_key

from ..exceptions import ConfigurationError

__all__ = ["make_project"]

TEMPLATE = Path(__file__).parent / "template"
#: PostgreSQL cuts names at 63 characters, and the database of the tests has a longer one.
_LONGEST = 40
#: The project has folders and modules of these names.
_TAKEN = frozenset({"chat", "deploy", "manage", "static", "tests"})


def make_project(name: str, directory: Path | None = None) -> Path:
    """Make a project.

    Args:
        name: the project's name, which is also that of the Python package with its settings.
        directory: the folder to make, or an empty one. By default ``name``, below the working directory.

    Returns:
        The project's folder.

    Raises:
        ConfigurationError: the name is refused, the folder is not empty, or it cannot be written.
    """
    _check_name(name)
    place = Path(name) if directory is None else directory
    try:
        place.mkdir(parents=True, exist_ok=True)
        if any(place.iterdir()):
            raise ConfigurationError(f"{place} is not empty; nothing was written. Name a new folder")
        _fill(place, {"project_name": name, "secret_key": f"django-insecure-{get_random_secret_key()}"})
    except OSError as error:
        raise ConfigurationError(f"cannot make the project in {place}: {error}") from error
    return place


def _fill(place: Path, values: dict[str, str]) -> None:
    for source in sorted(TEMPLATE.rglob("*")):
        parts = source.relative_to(TEMPLATE).with_suffix(source.suffix.removesuffix("-tpl")).parts
        target = place.joinpath(*(part.replace("project_name", values["project_name"]) for part in parts))
        if source.is_dir():
            target.mkdir()
            continue
        text = source.read_text(encoding="utf-8")
        for name, value in values.items():
            text = text.replace(f"{{{{ {name} }}}}", value)
        with target.open("x", encoding="utf-8") as file:
            file.write(text)


def _check_name(name: str) -> None:
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name) or len(name) > _LONGEST:
        suggested = re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_0123456789")[:_LONGEST] or "mysite"
        raise ConfigurationError(
            f"expected a name of 1 to {_LONGEST} letters from a to z, digits and underscores, a letter first; "
            f"got {name!r}: try {suggested!r}"
        )
    if keyword.iskeyword(name):
        raise ConfigurationError(f"{name!r} is a word of Python's own; choose another name")
    if name in _TAKEN:
        raise ConfigurationError(f"the project has a folder or module {name!r} of its own; choose another name")
    found = importlib.util.find_spec(name)
    if found is not None and found.origin is not None:
        raise ConfigurationError(f"there is a Python module {name!r} already ({found.origin}); choose another name")
