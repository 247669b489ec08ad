"""Check the built documentation: python tools/check_docs.py docs/_build/html.

- No signature shows a private name, a mark of autodoc or an address in memory.
- Every class and function has a link to its source; names of Python and Trio link to their documentation.
- Every block of code has a button that copies it.
- The attributes of consumers are shown.
- The search finds the page of each word in FOUND.
"""

from __future__ import annotations

import html
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

#: The page that the search must find for some words, among others.
FOUND = {
    "jwt": "how-to/users",
    "permission": "how-to/users",
    "middleware": "reference/middleware",
    "existing project": "how-to/existing-project",
    "prometheus": "how-to/metrics",
    "token": "how-to/users",
    "members room": "how-to/users",
    "celery": "how-to/send-from-outside",
    "htmx": "how-to/event-streams",
    "static files": "how-to/deploy",
    "nginx": "how-to/deploy",
    "bad gateway": "how-to/troubleshoot",
    "startproject": "how-to/existing-project",
}
ATTRIBUTES = (
    *("channel_layer", "channel_layer_alias", "channel_name", "scope"),
    *("handler_concurrency", "cancel_on_disconnect", "mailbox_overflow", "limits"),
)
#: The classes of these pages, and what they have beside ATTRIBUTES.
CONSUMERS = {"consumer": (), "generic-websocket": ("groups",), "generic-http": ("max_body_size",)}
#: A second name of a function, whose source is linked where it has the first.
ALIASES = ("trio_channels.db.database_sync_to_async",)
#: What no signature may show: names with an underscore in front, but not a dunder; marks; addresses.
PRIVATE = re.compile(r"(?<![\w-])_[A-Za-z]\w*|TypeAliasForwardRef|ForwardRef\(| at 0x[0-9a-f]+|<locals>")


def text_of(markup: str) -> str:
    """The text that a reader sees."""
    return html.unescape(re.sub(r"<[^>]+>", "", markup)).strip()


def signatures(page: str) -> Iterator[str]:
    """The markup of each signature, and of each list of bases."""
    yield from re.findall(r'<dt class="sig[^>]*>(.*?)</dt>', page, re.DOTALL)
    yield from re.findall(r"<p>Bases: (.*?)</p>", page, re.DOTALL)


def wrong_signatures(page: str) -> list[str]:
    """The signatures that show what they should not."""
    return [text for text in map(text_of, signatures(page)) if PRIVATE.search(text)]


def without_source(page: str) -> list[str]:
    """The classes and functions of the package whose source is not linked."""
    found = re.findall(r'<dl class="py (?:class|function)">\s*<dt class="sig[^>]*>(.*?)</dt>', page, re.DOTALL)
    texts = [text_of(markup) for markup in found if "viewcode-link" not in markup]
    return [text for text in texts if not text.startswith(ALIASES)]


def missing_attributes(page: str, extra: tuple[str, ...]) -> list[str]:
    """The attributes that are not shown for each consumer class of a page."""
    classes = len(re.findall(r'<dl class="py class">', page))
    return [name for name in (*ATTRIBUTES, *extra) if page.count(f"<strong>{name}</strong>") < classes]


def search(index: dict[str, Any], words: str) -> set[str]:
    """The pages that hold each of the words, as the search of the site finds them."""
    from sphinx.search.en import SearchEnglish  # the rest of this file is tested without Sphinx

    stem = SearchEnglish({}).stem
    found: list[set[str]] = []
    for word in words.split():
        hits: set[int] = set()
        for terms in (index["terms"], index["titleterms"]):
            numbers = terms.get(stem(word.lower()), [])
            hits.update([numbers] if isinstance(numbers, int) else numbers)
        found.append({index["docnames"][number] for number in hits})
    return set.intersection(*found)


def faults(site: Path) -> Iterator[str]:
    """A line for each fault."""
    pages = {path.relative_to(site).as_posix(): path.read_text() for path in sorted(site.rglob("*.html"))}
    shown = {name: page for name, page in pages.items() if not name.startswith("_modules/")}
    for name, page in shown.items():
        yield from (f"{name}: a private name or a mark in the signature {text!r}" for text in wrong_signatures(page))
        yield from (f"{name}: no link to the source of {text!r}" for text in without_source(page))
        if "<pre>" in page and "copybutton.js" not in page:
            yield f"{name}: no button to copy code"
    for name, extra in CONSUMERS.items():
        missing = missing_attributes(shown[f"reference/{name}.html"], extra)
        yield from (f"reference/{name}.html: the attribute {attribute} is not shown" for attribute in missing)
    for address in ("https://docs.python.org/3/", "https://trio.readthedocs.io/"):
        if not any(f'class="reference external" href="{address}' in page for page in shown.values()):
            yield f"no name is linked to {address}"
    index = json.loads((site / "searchindex.js").read_text().removeprefix("Search.setIndex(").removesuffix(")"))
    for words, page in FOUND.items():
        if page not in search(index, words):
            yield f"the search for {words!r} does not find {page}"


def main(arguments: list[str]) -> int:
    """Check the site in the folder that is named; returns the exit code."""
    if len(arguments) != 1:
        print("expected a folder; for example: python tools/check_docs.py docs/_build/html", file=sys.stderr)
        return 2
    found = list(faults(Path(arguments[0])))
    for fault in found:
        print(fault, file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
