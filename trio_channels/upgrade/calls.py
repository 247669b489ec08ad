"""Calls of asyncio and asgiref that have one plain equivalent; all others stay, and need a decision."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import libcst as cst
from libcst.codemod import CodemodContext
from libcst.codemod.visitors import AddImportsVisitor

from .names import renamed
from .qualified import Names, comments, dotted, text

_WAIT_FOR, _GATHER = "asyncio.wait_for", "asyncio.gather"
_TIMEOUTS = ("asyncio.timeout", "async_timeout.timeout")
#: Statements that may consist of an await.
_Valued = cst.Expr | cst.Assign | cst.AnnAssign | cst.Return
_TASKS = ("asyncio.create_task", "asyncio.ensure_future")
_LOOPS = ("asyncio.get_event_loop", "asyncio.new_event_loop")
#: Context managers that take the classes of exceptions; and methods of test cases, whatever the object's name is.
_CATCHING = ("contextlib.suppress", "pytest.raises")
_CATCHING_METHODS = ("assertRaises", "assertRaisesRegex")
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
        new = self._statement(original_node, updated_node)
        if comments(new) < comments(original_node):
            return updated_node
        if isinstance(new, cst.With):
            self._add("trio")
        return new

    def _statement(
        self, original_node: cst.SimpleStatementLine, updated_node: cst.SimpleStatementLine
    ) -> cst.BaseStatement:
        before, after = original_node.body[0], updated_node.body[0]
        if isinstance(before, cst.Expr) and isinstance(after, cst.Expr):
            if self._is(before.value, *_TASKS) and self._consumers and self._consumers[-1]:
                return self._start_soon(updated_node, cast(cst.Call, after.value))
            if isinstance(before.value, cst.Await) and self._is(before.value.expression, _GATHER):
                if any(self._is_left(argument.value) for argument in cast(cst.Call, before.value.expression).args):
                    return updated_node
                return self._nursery(updated_node, cast(cst.Call, cast(cst.Await, after.value).expression))
        value = getattr(before, "value", None)
        if isinstance(before, _Valued) and isinstance(value, cst.Await) and self._is(value.expression, _WAIT_FOR):
            return self._fail_after(value.expression, updated_node, cast(cst.Await, cast(_Valued, after).value))
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
        opening = cst.WithItem(cst.Call(dotted("trio.open_nursery")), cst.AsName(cst.Name("nursery")))
        return cst.With(
            [opening],
            cst.IndentedBlock(lines),
            asynchronous=cst.Asynchronous(),
            leading_lines=line.leading_lines,
        )

    def _fail_after(
        self, before: cst.BaseExpression, line: cst.SimpleStatementLine, awaited: cst.Await
    ) -> cst.BaseStatement:
        """``await asyncio.wait_for(f(), 5)``: ``with trio.fail_after(5): await f()``."""
        call = cast(cst.Call, awaited.expression)
        if len(call.args) != 2 or any(argument.star for argument in call.args):
            return line
        (first, second) = call.args
        if first.keyword is not None or (second.keyword is not None and second.keyword.value != "timeout"):
            return line
        if not isinstance(first.value, cst.Call):
            return line  # a task or future: it goes on elsewhere
        awaitable = self._of_task(cast(cst.Call, before).args[0].value, first.value)
        statement = line.body[0].with_changes(value=awaited.with_changes(expression=_alone(awaitable)))
        if text(second.value) == "None":
            return line.with_changes(body=[statement])
        return cst.With(
            [cst.WithItem(cst.Call(dotted("trio.fail_after"), [cst.Arg(second.value)]))],
            cst.IndentedBlock([line.with_changes(body=[statement], leading_lines=())]),
            leading_lines=line.leading_lines,
        )

    def leave_With(self, original_node: cst.With, updated_node: cst.With) -> cst.With:
        """``async with asyncio.timeout(5):``: ``with trio.fail_after(5):``; and ``with suppress(TimeoutError):``."""
        if self._has_limit(original_node.body):
            pairs = zip(original_node.items, updated_node.items, strict=True)
            updated_node = updated_node.with_changes(items=[self._catching(*pair) for pair in pairs])
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
        return cast(cst.Try, self._with_handlers(original_node, updated_node))

    def leave_TryStar(self, original_node: cst.TryStar, updated_node: cst.TryStar) -> cst.TryStar:
        """The same for ``except* TimeoutError``."""
        return cast(cst.TryStar, self._with_handlers(original_node, updated_node))

    def _with_handlers(self, original: cst.Try | cst.TryStar, updated: cst.Try | cst.TryStar) -> cst.Try | cst.TryStar:
        if not self._has_limit(original.body):
            return updated
        handlers = [
            after if (kind := getattr(before, "type", None)) is None else after.with_changes(type=self._too_slow(kind))
            for before, after in zip(original.handlers, updated.handlers, strict=True)
        ]
        return updated.with_changes(handlers=handlers)

    def _has_limit(self, node: cst.CSTNode) -> bool:
        """Whether a time limit is in a node, and not only in a function that it defines."""
        if isinstance(node, cst.FunctionDef | cst.Lambda):
            return False
        return self._is_limit(node) or any(self._has_limit(child) for child in node.children)

    def _is_limit(self, node: cst.CSTNode) -> bool:
        return isinstance(node, cst.Call) and self._is(node, _WAIT_FOR, *_TIMEOUTS)

    def _catching(self, before: cst.WithItem, after: cst.WithItem) -> cst.WithItem:
        """``pytest.raises(TimeoutError)``, ``suppress(TimeoutError)`` and the like, which need the other class, too."""
        old, new = before.item, after.item
        if not isinstance(old, cst.Call) or not isinstance(new, cst.Call):
            return after
        method = old.func.attr.value if isinstance(old.func, cst.Attribute) else ""
        if method not in _CATCHING_METHODS and self._names.of(old.func) not in _CATCHING:
            return after
        arguments = [
            two.with_changes(value=self._too_slow(one.value)) for one, two in zip(old.args, new.args, strict=True)
        ]
        return after.with_changes(item=new.with_changes(args=arguments))

    def _too_slow(self, kind: cst.BaseExpression) -> cst.BaseExpression:
        """The class that a time limit of Trio raises, for that of Python; also in a tuple."""
        if isinstance(kind, cst.Tuple):
            elements = [element.with_changes(value=self._too_slow(element.value)) for element in kind.elements]
            return kind.with_changes(elements=elements)
        if self._names.is_built_in(kind, "TimeoutError"):
            self._add("trio")
            return dotted("trio.TooSlowError")
        return kind

    # -- expressions ---------------------------------------------------------------------------------------------------

    def leave_Await(self, original_node: cst.Await, updated_node: cst.Await) -> cst.Await:
        """``await asyncio.ensure_future(f(x))``: ``await f(x)``."""
        awaited = self._of_task(original_node.expression, updated_node.expression)
        if awaited is updated_node.expression or comments(awaited) < comments(original_node.expression):
            return updated_node
        return updated_node.with_changes(expression=_alone(awaited))

    def _of_task(self, before: cst.BaseExpression, after: cst.BaseExpression) -> cst.BaseExpression:
        """The call whose task is made, ``f(x)`` of ``asyncio.create_task(f(x))``; anything else as it is."""
        if not self._is(before, *_TASKS) or not isinstance(after, cst.Call) or len(after.args) != 1:
            return after
        argument, old = after.args[0], cast(cst.Call, before).args[0].value
        is_plain = argument.keyword is None and not argument.star and isinstance(argument.value, cst.Call)
        return argument.value if is_plain and not self._is_left(old) else after

    def _is_left(self, node: cst.BaseExpression) -> bool:
        """Whether it is a call of asyncio that a person must look at: it stays where it is."""
        name = (self._names.of(node.func) or "") if isinstance(node, cst.Call) else ""
        return name.startswith("asyncio.") and renamed(name) is None

    def leave_Call(self, original_node: cst.Call, updated_node: cst.Call) -> cst.BaseExpression:
        name, arguments = self._names.of(original_node.func), updated_node.args
        if (name == "asyncio.run" or self._is_loops_run(original_node.func)) and len(arguments) == 1:
            found = None if self._is_left(original_node.args[0].value) else _function_and_arguments(arguments[0])
            if found is not None:
                new = updated_node.with_changes(func=dotted("trio.run"), args=found)
                if comments(new) == comments(original_node):
                    self._add("trio")
                    return new
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


def _alone(node: cst.BaseExpression) -> cst.BaseExpression:
    """An expression that was in parentheses, and is no more: if it has several lines it needs its own."""
    if "\n" not in text(node) or node.lpar:
        return node
    return node.with_changes(lpar=[cst.LeftParen()], rpar=[cst.RightParen()])


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
