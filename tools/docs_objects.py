"""Parts of the documentation's build: links to other sites, and the signatures and attributes of classes."""

from __future__ import annotations

import inspect
import re
import tomllib
import zlib
from pathlib import Path
from typing import Any

from trio_channels.consumer.base import Consumer

OBJECTS = Path(__file__).parent / "docs_objects.toml"
#: The constructor of a consumer takes anything; as_asgi() makes the instances.
_ANYTHING = "(*_args: ~typing.Any, **_kwargs: ~typing.Any)"


def mapping(folder: Path) -> dict[str, tuple[str, tuple[str | None, str]]]:
    """The value of intersphinx_mapping: each site by its own inventory, or if it is out of reach by ours."""
    folder.mkdir(parents=True, exist_ok=True)
    sites = tomllib.loads(OBJECTS.read_text())
    for name, site in sites.items():
        (folder / f"{name}.inv").write_bytes(inventory(name, site["objects"]))
    return {
        name: (site["address"], (site.get("inventory"), str(folder / f"{name}.inv"))) for name, site in sites.items()
    }


def inventory(project: str, objects: dict[str, list[str]]) -> bytes:
    """An inventory of Sphinx, version 2: the names by the page of each, as "role page"."""
    head = f"# Sphinx inventory version 2\n# Project: {project}\n# Version: \n# The rest is compressed by zlib.\n"
    lines = [
        f"{name} py:{role} 1 {page}#$ -\n"
        for place, names in objects.items()
        for role, _, page in [place.partition(" ")]
        for name in names
    ]
    return head.encode() + zlib.compress("".join(lines).encode())


def plain_signature(
    _app: object, _what: str, _name: str, _object: object, _options: object, signature: str | None, returned: str | None
) -> tuple[str | None, str | None]:
    """A signature without the marks of aliases that autodoc leaves, and of unused arguments."""

    def plain(text: str | None) -> str | None:
        text = text and re.sub(r"TypeAliasForwardRef\('(\w+)'\)", r"\1", text)
        return text and re.sub(r"\*_(args|kwargs)\b", r"*\1", text)  # unused ones

    return plain("" if signature == _ANYTHING else signature), plain(returned)


def with_inherited_attributes(
    _app: object, what: str, _name: str, cls: Any, _options: object, lines: list[str]
) -> None:
    """Show the attributes that a consumer class has from its bases, beside its own; its methods are shown so too."""
    if what != "class" or not issubclass(cls, Consumer):
        return
    docstrings = [inspect.cleandoc(base.__dict__.get("__doc__") or "").splitlines() for base in cls.__mro__[1:]]
    inherited = [line for docstring in docstrings for line in docstring[_section(docstring)]]
    section = _section(lines)
    if section.start == section.stop:
        inherited = ["", "Attributes:", *inherited, ""]
    lines[section.stop : section.stop] = inherited


def _section(docstring: list[str]) -> slice:
    """Where the lines of the section ``Attributes`` are; at the end of a docstring without one."""
    if "Attributes:" not in docstring:
        return slice(len(docstring), len(docstring))
    start = end = docstring.index("Attributes:") + 1
    while end < len(docstring) and docstring[end].startswith(" "):
        end += 1
    return slice(start, end)
