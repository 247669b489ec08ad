"""The qualified names of a module's nodes: ``asyncio.sleep`` for ``sleep`` after ``from asyncio import sleep``."""

from __future__ import annotations

from collections.abc import Mapping

import libcst as cst
from libcst.metadata import (
    MetadataWrapper,
    QualifiedName,
    QualifiedNameProvider,
    QualifiedNameSource,
)


class Names:
    """The names of one module, which come from imports. Nodes are those of :attr:`module`."""

    def __init__(self, module: cst.Module) -> None:
        self.wrapper = MetadataWrapper(module)
        self.module = self.wrapper.module
        self._names: Mapping[cst.CSTNode, object] = self.wrapper.resolve(QualifiedNameProvider)

    def of(self, node: cst.CSTNode) -> str | None:
        """The qualified name of a node that is or uses an imported name; None for every other one."""
        names = {name.name for name in self._found(node) if name.source is QualifiedNameSource.IMPORT}
        return names.pop() if len(names) == 1 else None

    def is_built_in(self, node: cst.CSTNode, name: str) -> bool:
        """Whether a node is this name of Python's own, and nothing in the module has the same name."""
        found = self._found(node)
        return bool(found) and all(
            one.source is QualifiedNameSource.BUILTIN and one.name == f"builtins.{name}" for one in found
        )

    def _found(self, node: cst.CSTNode) -> list[QualifiedName]:
        found = self._names.get(node, ())
        if callable(found):  # computed when it is asked for
            found = found()
        return [name for name in found if isinstance(name, QualifiedName)]  # type: ignore[attr-defined]


def dotted(name: str) -> cst.Name | cst.Attribute:
    """The expression of a dotted name."""
    first, *rest = name.split(".")
    expression: cst.Name | cst.Attribute = cst.Name(first)
    for part in rest:
        expression = cst.Attribute(expression, cst.Name(part))
    return expression


def text(node: cst.CSTNode) -> str:
    """The source of a node."""
    return cst.Module([]).code_for_node(node)


def comments(node: cst.CSTNode) -> int:
    """The number of comments in a node: a rewriter must not lose one."""
    return isinstance(node, cst.Comment) + sum(map(comments, node.children))
