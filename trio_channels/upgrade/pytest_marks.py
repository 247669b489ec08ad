"""The marks of pytest-asyncio become those of pytest-trio."""

from __future__ import annotations

import libcst as cst
from libcst.codemod import CodemodContext

from .qualified import Names, dotted


class _Marks(cst.CSTTransformer):
    def __init__(self, names: Names) -> None:
        super().__init__()
        self._names = names

    def leave_Attribute(self, original_node: cst.Attribute, updated_node: cst.Attribute) -> cst.BaseExpression:
        if self._names.of(original_node) == "pytest.mark.asyncio":
            return updated_node.with_changes(attr=cst.Name("trio"))
        return updated_node

    def leave_Call(self, original_node: cst.Call, updated_node: cst.Call) -> cst.BaseExpression:
        name = self._names.of(original_node.func)
        if name == "pytest.mark.asyncio":  # loop_scope= means nothing here
            return dotted("pytest.mark.trio")
        if name == "pytest_asyncio.fixture":
            kept = [one for one in updated_node.args if one.keyword is None or one.keyword.value != "loop_scope"]
            if len(kept) < len(updated_node.args):
                kept[-1:] = [one.with_changes(comma=cst.MaybeSentinel.DEFAULT) for one in kept[-1:]]
                return updated_node.with_changes(args=kept)
        return updated_node


def rewrite_marks(module: cst.Module, _context: CodemodContext) -> cst.Module:
    """Rewrite the marks of pytest-asyncio; the import stage does its fixtures."""
    names = Names(module)
    return names.module.visit(_Marks(names))
