"""One source file: parsed once, rewritten by each rewriter in turn, with the places that need a decision."""

from __future__ import annotations

import re
from dataclasses import dataclass

import libcst as cst
from libcst.codemod import CodemodContext
from libcst.codemod.visitors import AddImportsVisitor, RemoveImportsVisitor

from .calls import rewrite_calls
from .decisions import Decision, find_decisions
from .imports import note_used, rewrite_imports
from .names import PACKAGES
from .pytest_marks import rewrite_marks
from .queues import rewrite_queues
from .settings import rewrite_settings

#: In this order: each sees the names as they were, and notes in the context which imports it needs, and which may go.
_REWRITERS = (note_used, rewrite_queues, rewrite_calls, rewrite_marks, rewrite_settings, rewrite_imports)


#: A file without any of these words stays as it is: most files of a project, and parsing takes long.
_RELEVANT = re.compile(rb"channels|[Aa]syncio|asgiref|asgi|daphne|uvicorn|" + "|".join(sorted(PACKAGES)).encode())


@dataclass(frozen=True)
class Upgraded:
    """A file's new source, and what a person must decide."""

    source: bytes
    decisions: list[Decision]


def upgrade(source: bytes) -> Upgraded:
    """Rewrite a file. Its encoding, line ends and formatting stay.

    Raises:
        libcst.ParserSyntaxError: it is not Python.
    """
    if not _RELEVANT.search(source):
        return Upgraded(source, [])
    module, context = cst.parse_module(source), CodemodContext()
    for rewrite in _REWRITERS:
        module = rewrite(module, context)
    module = RemoveImportsVisitor(context).transform_module(AddImportsVisitor(context).transform_module(module))
    # In the result, so that the line numbers are those of the file after --write.
    return Upgraded(module.bytes, find_decisions(module))
