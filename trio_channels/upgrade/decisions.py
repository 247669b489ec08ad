"""The places that no rewriter changes for sure: file, line, and the way to do it here."""

from __future__ import annotations

from dataclasses import dataclass

import libcst as cst
from libcst.metadata import PositionProvider

from . import names
from .names import METHODS, NEVER_SWALLOW, NO_CLEAR, NO_LOOP
from .qualified import Names, text


@dataclass(frozen=True, order=True)
class Decision:
    """A line that a person must look at."""

    line: int
    name: str
    way: str

    def __str__(self) -> str:
        return f"{self.line}: {self.name}: {self.way}"


class _Finder(cst.CSTVisitor):
    METADATA_DEPENDENCIES = (PositionProvider,)

    def __init__(self, known: Names) -> None:
        super().__init__()
        self._names = known
        self._positions = known.wrapper.resolve(PositionProvider)
        self._has_event = False
        self._clears: list[cst.Call] = []
        self.found: set[Decision] = set()

    def _look_at(self, node: cst.CSTNode, name: str | None) -> bool:
        if name is None:
            return False
        way = names.decision(name)
        if way is not None:
            self.found.add(Decision(self._positions[node].start.line, name, way))
        return way is not None

    def visit_Attribute(self, node: cst.Attribute) -> bool:
        if (way := METHODS.get(node.attr.value)) is not None:
            self.found.add(Decision(self._positions[node].start.line, text(node), way))
        # The inner names of a name that was found say nothing more.
        return not self._look_at(node, self._names.of(node))

    def visit_Name(self, node: cst.Name) -> None:
        self._look_at(node, self._names.of(node))

    def visit_ImportFrom(self, node: cst.ImportFrom) -> bool:
        if node.module is None or node.relative:
            return False
        module = text(node.module)
        if isinstance(node.names, cst.ImportStar):
            self._look_at(node, module)
        else:
            for alias in node.names:
                name = f"{module}.{text(alias.name)}"
                if not self._look_at(node, name) and (new := names.renamed(name)) is not None:
                    # It stands beside others that are in several modules now, in a line with other statements.
                    self.found.add(Decision(self._positions[node].start.line, name, f"import {new} instead"))
        return False

    def visit_Import(self, node: cst.Import) -> bool:
        for alias in node.names:
            # asyncio alone is nothing: its uses are looked at.
            if (name := text(alias.name)) != "asyncio":
                self._look_at(node, name)
        return False

    def visit_FunctionDef(self, node: cst.FunctionDef) -> None:
        if node.name.value in ("event_loop", "event_loop_policy") and node.decorators:  # as pytest-asyncio asks for
            self.found.add(Decision(self._positions[node].start.line, node.name.value, NO_LOOP))

    def visit_ExceptHandler(self, node: cst.ExceptHandler) -> None:
        if node.type is not None and self._has_cancelled(node.type) and not _raises(node):
            self._swallowed(node)

    def _swallowed(self, node: cst.CSTNode) -> None:
        self.found.add(Decision(self._positions[node].start.line, "trio.Cancelled", NEVER_SWALLOW))

    def _has_cancelled(self, node: cst.BaseExpression) -> bool:
        """Whether it is the exception of a cancellation, or a tuple that has it."""
        classes = [element.value for element in node.elements] if isinstance(node, cst.Tuple) else [node]
        return any(self._names.of(one) == "trio.Cancelled" for one in classes)

    def visit_Call(self, node: cst.Call) -> None:
        if self._names.of(node.func) == "trio.Event":
            self._has_event = True
        elif self._is_swallowing(node.func) and any(self._has_cancelled(one.value) for one in node.args):
            self._swallowed(node)
        elif isinstance(node.func, cst.Attribute) and node.func.attr.value == "clear" and not node.args:
            self._clears.append(node)

    def _is_swallowing(self, function: cst.BaseExpression) -> bool:
        method = function.attr.value if isinstance(function, cst.Attribute) else ""
        return method.startswith("assertRaises") or self._names.of(function) in ("pytest.raises", "contextlib.suppress")

    def leave_Module(self, original_node: cst.Module) -> None:
        if self._has_event:
            for node in self._clears:
                decision = Decision(self._positions[node].start.line, text(node.func), NO_CLEAR)
                self.found.add(decision)


def _raises(handler: cst.ExceptHandler) -> bool:
    """Whether the last statement of a handler raises again."""
    body = handler.body.body
    last = body[-1] if body else None
    return (
        isinstance(last, cst.SimpleStatementLine)
        and isinstance(last.body[-1], cst.Raise)
        and last.body[-1].exc is None
    )  # fmt: skip


def find_decisions(module: cst.Module) -> list[Decision]:
    """All places of a module that need a decision, in order."""
    known = Names(module)
    finder = _Finder(known)
    known.module.visit(finder)
    return sorted(finder.found)
