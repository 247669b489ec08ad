"""``manage.py topics``: the topics of the project, as a list, an AsyncAPI document or TypeScript types."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from ...exceptions import TrioChannelsError
from ...routing import get_default_application
from ...topics import asyncapi, typescript
from ...topics.description import Described, describe
from ...topics.listing import topics_of


class Command(BaseCommand):
    """Writes the topics that the routes of ``ASGI_APPLICATION`` lead to."""

    help = "Lists the topics of the project, or writes them as an AsyncAPI document or as TypeScript types."

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declare the arguments."""
        form = parser.add_mutually_exclusive_group()
        form.add_argument("--list", action="store_true", help="a list for people (the default)")
        form.add_argument("--asyncapi", action="store_true", help="an AsyncAPI 3 document, as JSON")
        form.add_argument("--typescript", action="store_true", help="TypeScript types")
        parser.add_argument(
            "--output", type=Path, metavar="FILE", help="write to a file, and not to the standard output"
        )
        parser.add_argument(
            "--check", action="store_true", help="write nothing; exit with 1 unless FILE has the same content already"
        )
        parser.add_argument("--title", help="the title of the AsyncAPI document; the project's name by default")
        parser.add_argument(
            "--api-version", default="1.0.0", help="the version that the AsyncAPI document states (1.0.0)"
        )

    def handle(self, *_args: Any, **options: Any) -> None:
        """Run the command."""
        output: Path | None = options["output"]
        if options["check"] and output is None:
            raise CommandError("--check expects --output FILE, the file to compare with")
        try:
            text = self._text(options)
        except TrioChannelsError as error:
            raise CommandError(str(error)) from error
        if output is None:
            self.stdout.write(text, ending="")
        elif not options["check"]:
            output.write_text(text, encoding="utf-8")
        elif not output.exists() or output.read_text(encoding="utf-8") != text:
            raise CommandError(f"{output} is not up to date: run the command again without --check")

    def _text(self, options: dict[str, Any]) -> str:
        described = describe(topics_of(get_default_application()))
        if options["asyncapi"]:
            title = options["title"] or settings.ASGI_APPLICATION.partition(".")[0]
            return json.dumps(asyncapi.document(described, title, options["api_version"]), indent=2) + "\n"
        return typescript.declarations(described) if options["typescript"] else _listed(described)


def _listed(described: Sequence[Described]) -> str:
    if not described:
        return "The routes of ASGI_APPLICATION lead to no topics.\n"
    lines = []
    for each in described:
        lines.append(f"{each.topic.pattern}  {each.topic.__module__}.{each.topic.__qualname__}")
        lines += [f"    at {address}" for address in each.addresses]
        lines += [f"    receives {event}" for event in each.pushes]
        lines += [f"    sends {event}" for event in each.sends]
    return "\n".join(lines) + "\n"
