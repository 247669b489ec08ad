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
        found = self._names.get(node, ())
        if callable(found):  # computed when it is asked for
            found = found()
        names = {
            name.name
            for name in found  # type: ignore[attr-defined]
            if isinstance(name, QualifiedName) and name.source is QualifiedNameSource.IMPORT
        }
        return names.pop() if len(names) == 1 else None


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
