"""An ``asyncio.Queue`` that is only put into and got from becomes the two ends of a memory channel."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import libcst as cst
from libcst.codemod import CodemodContext
from libcst.codemod.visitors import AddImportsVisitor
from libcst.metadata import ParentNodeProvider

from .qualified import Names, dotted, text

#: Methods of a queue -> the end and the method of a memory channel.
_METHODS = {
    "put": ("send", "send"),
    "put_nowait": ("send", "send_nowait"),
    "get": ("receive", "receive"),
    "get_nowait": ("receive", "receive_nowait"),
}


class _Uses(cst.CSTVisitor):
    """Finds the queues of a module, by the source of their names, and all uses of each."""

    def __init__(self, names: Names) -> None:
        super().__init__()
        self._names = names
        self._parents: Mapping[cst.CSTNode, cst.CSTNode] = names.wrapper.resolve(ParentNodeProvider)
        self.made: dict[str, list[cst.Assign]] = {}
        self.plain: dict[str, int] = {}
        self.all: dict[str, int] = {}

    def visit_Assign(self, node: cst.Assign) -> None:
        if isinstance(node.value, cst.Call) and self._names.of(node.value.func) == "asyncio.Queue":
            for target in node.targets:
                self.made.setdefault(text(target.target), []).append(node)

    def _use(self, node: cst.Name | cst.Attribute) -> None:
        name = text(node)
        self.all[name] = self.all.get(name, 0) + 1
        parent = self._parents.get(node)
        call = self._parents.get(parent) if parent is not None else None
        is_method = (
            isinstance(parent, cst.Attribute)
            and parent.value is node
            and parent.attr.value in _METHODS
            and isinstance(call, cst.Call)
            and call.func is parent
            and all(one.keyword is None and not one.star for one in call.args)
        )
        if is_method or isinstance(parent, cst.AssignTarget):
            self.plain[name] = self.plain.get(name, 0) + 1

    def visit_Name(self, node: cst.Name) -> None:
        self._use(node)

    def visit_Attribute(self, node: cst.Attribute) -> None:
        self._use(node)

    def plain_queues(self) -> set[str]:
        """The queues that are made in one place, alone, and are not used in another way."""
        return {
            name
            for name, made in self.made.items()
            if len(made) == 1
            and len(made[0].targets) == 1
            and _size(made[0]) is not None
            and self.plain.get(name) == self.all.get(name)
        }


def _size(node: cst.Assign) -> cst.BaseExpression | None:
    """The size of the memory channel for a new queue; None if its arguments are not plain."""
    arguments = cst.ensure_type(node.value, cst.Call).args
    if not arguments:
        return dotted("math.inf")
    (first, *others) = arguments
    if others or first.star or (first.keyword is not None and first.keyword.value != "maxsize"):
        return None
    if isinstance(first.value, cst.Integer):
        # 0 is without a limit there, and without a buffer here.
        return first.value if int(first.value.value) > 0 else dotted("math.inf")
    return None


class _Queues(cst.CSTTransformer):
    def __init__(self, queues: set[str], context: CodemodContext) -> None:
        super().__init__()
        self._queues = queues
        self._context = context

    def leave_Assign(self, original_node: cst.Assign, updated_node: cst.Assign) -> cst.Assign:
        name = text(original_node.targets[0].target)
        if name not in self._queues:
            return updated_node
        size = cast(cst.BaseExpression, _size(original_node))  # plain, as the queue is one of these
        if text(size) == "math.inf":
            AddImportsVisitor.add_needed_import(self._context, "math")
        AddImportsVisitor.add_needed_import(self._context, "trio")
        ends = cst.Tuple([cst.Element(dotted(f"{name}_{end}")) for end in ("send", "receive")], lpar=(), rpar=())
        return updated_node.with_changes(
            targets=[updated_node.targets[0].with_changes(target=ends)],
            value=cst.Call(dotted("trio.open_memory_channel"), [cst.Arg(size)]),
        )

    def leave_Attribute(self, original_node: cst.Attribute, updated_node: cst.Attribute) -> cst.BaseExpression:
        name = text(original_node.value)
        if name not in self._queues or original_node.attr.value not in _METHODS:
            return updated_node
        end, method = _METHODS[original_node.attr.value]
        return dotted(f"{name}_{end}.{method}")


def rewrite_queues(module: cst.Module, context: CodemodContext) -> cst.Module:
    """Rewrite the queues whose every use has an equivalent."""
    names = Names(module)
    uses = _Uses(names)
    names.module.visit(uses)
    queues = uses.plain_queues()
    if not queues:
        return module
    return names.module.visit(_Queues(queues, context))
