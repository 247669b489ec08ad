"""Calls of asyncio and asgiref that have one plain equivalent; all others stay, and need a decision."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import libcst as cst
from libcst.codemod import CodemodContext
from libcst.codemod.visitors import AddImportsVisitor

from .qualified import Names, dotted, text

_WAIT_FOR, _GATHER = "asyncio.wait_for", "asyncio.gather"
_TIMEOUTS = ("asyncio.timeout", "async_timeout.timeout")
#: Statements that may consist of an await.
_Valued = cst.Expr | cst.Assign | cst.AnnAssign | cst.Return
_TASKS = ("asyncio.create_task", "asyncio.ensure_future")
_LOOPS = ("asyncio.get_event_loop", "asyncio.new_event_loop")
#: Functions and decorators that take a function and nothing else here.
_BRIDGES = (
    *("asgiref.sync.sync_to_async", "asgiref.sync.async_to_sync", "channels.db.database_sync_to_async"),
    *("trio_channels.sync.sync_to_async", "trio_channels.sync.async_to_sync"),
    "trio_channels.db.database_sync_to_async",
)


class _Calls(cst.CSTTransformer):
    def __init__(self, names: Names, context: CodemodContext) -> None:
        super().__init__()
        self._names = names
        self._context = context
        self._consumers: list[bool] = []  # for each class around: whether it is a consumer

    def _is(self, node: cst.BaseExpression, *wanted: str) -> bool:
        return isinstance(node, cst.Call) and self._names.of(node.func) in wanted

    def _add(self, module: str, name: str | None = None) -> None:
        AddImportsVisitor.add_needed_import(self._context, module, name)

    # -- statements ----------------------------------------------------------------------------------------------------

    def visit_ClassDef(self, node: cst.ClassDef) -> None:
        bases = [self._names.of(base.value) or "" for base in node.bases]
        prefixes = ("channels.consumer.", "channels.generic.", "trio_channels.consumer.", "trio_channels.generic.")
        self._consumers.append(any(base.startswith(prefixes) for base in bases))

    def leave_ClassDef(self, original_node: cst.ClassDef, updated_node: cst.ClassDef) -> cst.ClassDef:
        self._consumers.pop()
        return updated_node

    def leave_SimpleStatementLine(
        self, original_node: cst.SimpleStatementLine, updated_node: cst.SimpleStatementLine
    ) -> cst.BaseStatement:
        if len(original_node.body) != 1:
            return updated_node
        before, after = original_node.body[0], updated_node.body[0]
        if isinstance(before, cst.Expr) and isinstance(after, cst.Expr):
            if self._is(before.value, *_TASKS) and self._consumers and self._consumers[-1]:
                return self._start_soon(updated_node, cast(cst.Call, after.value))
            if isinstance(before.value, cst.Await) and self._is(before.value.expression, _GATHER):
                return self._nursery(updated_node, cast(cst.Call, cast(cst.Await, after.value).expression))
        value = getattr(before, "value", None)
        if isinstance(before, _Valued) and isinstance(value, cst.Await) and self._is(value.expression, _WAIT_FOR):
            return self._fail_after(updated_node, cast(cst.Await, cast(_Valued, after).value))
        return updated_node

    def _start_soon(self, line: cst.SimpleStatementLine, call: cst.Call) -> cst.SimpleStatementLine:
        """``asyncio.create_task(f(x))`` as a statement in a consumer: ``self.start_soon(f, x)``."""
        if len(call.args) != 1 or (arguments := _function_and_arguments(call.args[0])) is None:
            return line
        return line.with_changes(body=[cst.Expr(cst.Call(dotted("self.start_soon"), arguments))])

    def _nursery(self, line: cst.SimpleStatementLine, call: cst.Call) -> cst.BaseStatement:
        """``await asyncio.gather(f(x), g())`` whose results nobody takes: a nursery."""
        found = [_function_and_arguments(argument) for argument in call.args]
        if not found or None in found:
            return line
        start = dotted("nursery.start_soon")
        lines = [
            cst.SimpleStatementLine([cst.Expr(cst.Call(start, arguments))])
            for arguments in cast(list[list[cst.Arg]], found)
        ]
        lines[-1] = lines[-1].with_changes(trailing_whitespace=line.trailing_whitespace)
        self._add("trio")
        opening = cst.WithItem(cst.Call(dotted("trio.open_nursery")), cst.AsName(cst.Name("nursery")))
        return cst.With(
            [opening],
            cst.IndentedBlock(lines),
            asynchronous=cst.Asynchronous(),
            leading_lines=line.leading_lines,
        )

    def _fail_after(self, line: cst.SimpleStatementLine, awaited: cst.Await) -> cst.BaseStatement:
        """``await asyncio.wait_for(f(), 5)``: ``with trio.fail_after(5): await f()``."""
        call = cast(cst.Call, awaited.expression)
        if len(call.args) != 2 or any(argument.star for argument in call.args):
            return line
        (first, second) = call.args
        if first.keyword is not None or (second.keyword is not None and second.keyword.value != "timeout"):
            return line
        if not isinstance(first.value, cst.Call):
            return line  # a task or future: it goes on elsewhere
        statement = line.body[0].with_changes(value=awaited.with_changes(expression=first.value))
        if text(second.value) == "None":
            return line.with_changes(body=[statement])
        self._add("trio")
        return cst.With(
            [cst.WithItem(cst.Call(dotted("trio.fail_after"), [cst.Arg(second.value)]))],
            cst.IndentedBlock([line.with_changes(body=[statement], leading_lines=())]),
            leading_lines=line.leading_lines,
        )

    def leave_With(self, original_node: cst.With, updated_node: cst.With) -> cst.With:
        """``async with asyncio.timeout(5):``: ``with trio.fail_after(5):``; and ``with suppress(TimeoutError):``."""
        if self._has_limit(original_node.body):
            updated_node = updated_node.with_changes(items=[self._catching(item) for item in updated_node.items])
        items = original_node.items
        if len(items) != 1 or items[0].asname is not None or not self._is(items[0].item, *_TIMEOUTS):
            return updated_node
        call = cast(cst.Call, updated_node.items[0].item)
        if len(call.args) != 1 or call.args[0].keyword is not None or text(call.args[0].value) == "None":
            return updated_node
        self._add("trio")
        item = updated_node.items[0].with_changes(item=call.with_changes(func=dotted("trio.fail_after")))
        return updated_node.with_changes(items=[item], asynchronous=None)

    def leave_Try(self, original_node: cst.Try, updated_node: cst.Try) -> cst.Try:
        """``except TimeoutError`` around a time limit of asyncio: that is the same class there, and not here."""
        if not self._has_limit(original_node.body):
            return updated_node
        return updated_node.with_changes(handlers=[self._handler(handler) for handler in updated_node.handlers])

    def _has_limit(self, node: cst.CSTNode) -> bool:
        return self._is_limit(node) or any(self._has_limit(child) for child in node.children)

    def _is_limit(self, node: cst.CSTNode) -> bool:
        return isinstance(node, cst.Call) and self._is(node, _WAIT_FOR, *_TIMEOUTS)

    def _handler(self, handler: cst.ExceptHandler) -> cst.ExceptHandler:
        return handler if handler.type is None else handler.with_changes(type=self._too_slow(handler.type))

    def _catching(self, item: cst.WithItem) -> cst.WithItem:
        """``pytest.raises(TimeoutError)``, ``suppress(TimeoutError)`` and the like, which need the other class, too."""
        if not isinstance(call := item.item, cst.Call):
            return item
        arguments = [argument.with_changes(value=self._too_slow(argument.value)) for argument in call.args]
        return item.with_changes(item=call.with_changes(args=arguments))

    def _too_slow(self, kind: cst.BaseExpression) -> cst.BaseExpression:
        """The class that a time limit of Trio raises, for that of Python; also in a tuple."""
        if isinstance(kind, cst.Tuple):
            elements = [element.with_changes(value=self._too_slow(element.value)) for element in kind.elements]
            return kind.with_changes(elements=elements)
        if isinstance(kind, cst.Name) and kind.value == "TimeoutError":
            self._add("trio")
            return dotted("trio.TooSlowError")
        return kind

    # -- expressions ---------------------------------------------------------------------------------------------------

    def leave_Await(self, original_node: cst.Await, updated_node: cst.Await) -> cst.Await:
        """``await asyncio.ensure_future(f(x))``: ``await f(x)``."""
        call = updated_node.expression
        if self._is(original_node.expression, *_TASKS) and isinstance(call, cst.Call) and len(call.args) == 1:
            (argument,) = call.args
            if argument.keyword is None and not argument.star and isinstance(argument.value, cst.Call):
                return updated_node.with_changes(expression=argument.value)
        return updated_node

    def leave_Call(self, original_node: cst.Call, updated_node: cst.Call) -> cst.BaseExpression:
        name, arguments = self._names.of(original_node.func), updated_node.args
        if (name == "asyncio.run" or self._is_loops_run(original_node.func)) and len(arguments) == 1:
            if (found := _function_and_arguments(arguments[0])) is not None:
                self._add("trio")
                return updated_node.with_changes(func=dotted("trio.run"), args=found)
        elif name == "asyncio.to_thread" and arguments and not arguments[0].star:
            self._add("trio_channels.sync", "sync_to_async")
            bridged = cst.Call(cst.Name("sync_to_async"), [cst.Arg(arguments[0].value)])
            return updated_node.with_changes(func=bridged, args=arguments[1:])
        elif name == "asyncio.Semaphore" and len(arguments) == 1:
            self._add("trio")
            return updated_node.with_changes(func=dotted("trio.Semaphore"))
        elif name in _BRIDGES:
            kept = [argument for argument in arguments if not _is_without_effect(argument)]
            if len(kept) < len(arguments):
                kept[-1:] = [argument.with_changes(comma=cst.MaybeSentinel.DEFAULT) for argument in kept[-1:]]
                return updated_node.with_changes(args=kept)
        return updated_node

    def _is_loops_run(self, function: cst.BaseExpression) -> bool:
        """Whether it is ``asyncio.get_event_loop().run_until_complete``."""
        return (
            isinstance(function, cst.Attribute)
            and function.attr.value == "run_until_complete"
            and self._is(function.value, *_LOOPS)
        )

    def leave_Decorator(self, original_node: cst.Decorator, updated_node: cst.Decorator) -> cst.Decorator:
        """``@sync_to_async()``: ``@sync_to_async``."""
        call = updated_node.decorator
        if isinstance(call, cst.Call) and not call.args and self._is(original_node.decorator, *_BRIDGES):
            return updated_node.with_changes(decorator=call.func)
        return updated_node


def _function_and_arguments(argument: cst.Arg) -> list[cst.Arg] | None:
    """For ``f(x)`` the arguments ``f, x`` of ``start_soon``; None for anything else, keyword arguments too."""
    call = argument.value
    if argument.star or argument.keyword is not None or not isinstance(call, cst.Call):
        return None
    if any(one.keyword is not None or one.star for one in call.args):
        return None
    return [cst.Arg(call.func), *_plain(call.args)]


def _plain(arguments: Sequence[cst.Arg]) -> list[cst.Arg]:
    return [cst.Arg(argument.value) for argument in arguments]


def _is_without_effect(argument: cst.Arg) -> bool:
    """Whether an argument is ``thread_sensitive=True``, which is the only way here, or is about the loop."""
    name = argument.keyword.value if argument.keyword is not None else ""
    return (name, text(argument.value)) == ("thread_sensitive", "True") or name == "force_new_loop"


def rewrite_calls(module: cst.Module, context: CodemodContext) -> cst.Module:
    """Rewrite the calls that have one plain equivalent."""
    names = Names(module)
    return names.module.visit(_Calls(names, context))
