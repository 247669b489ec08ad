"""Imports, and the names that are used through them."""

from __future__ import annotations

from collections.abc import Sequence

import libcst as cst
from libcst.codemod import CodemodContext
from libcst.codemod.visitors import AddImportsVisitor, RemoveImportsVisitor

from .names import MODULES, renamed
from .qualified import Names, dotted, text

#: Modules whose imports go when nothing uses them any more.
_LEFT_OVER = ("asyncio", "asyncio.exceptions", "async_timeout", "asgiref.sync", "pytest_asyncio")


class _Imports(cst.CSTTransformer):
    """Renames in import statements, and in names that contain the path of a module."""

    def __init__(self, names: Names, context: CodemodContext) -> None:
        super().__init__()
        self._names = names
        self._context = context

    def leave_Import(self, original_node: cst.Import, updated_node: cst.Import) -> cst.Import:
        aliases = [self._alias(alias) for alias in updated_node.names]
        return updated_node.with_changes(names=aliases)

    @staticmethod
    def _alias(alias: cst.ImportAlias) -> cst.ImportAlias:
        new = MODULES.get(text(alias.name))
        return alias if new is None else alias.with_changes(name=dotted(new))

    def leave_ImportFrom(self, original_node: cst.ImportFrom, updated_node: cst.ImportFrom) -> cst.ImportFrom:
        if updated_node.module is None or updated_node.relative:
            return updated_node
        module = text(updated_node.module)
        if isinstance(updated_node.names, cst.ImportStar):
            new = MODULES.get(module)
            return updated_node if new is None else updated_node.with_changes(module=dotted(new))
        groups = _by_place(module, updated_node.names)
        if len(groups) > 1:
            return updated_node  # for the whole line
        ((place, aliases),) = groups.items()
        return updated_node if place == module else updated_node.with_changes(module=dotted(place), names=aliases)

    def leave_SimpleStatementLine(
        self, original_node: cst.SimpleStatementLine, updated_node: cst.SimpleStatementLine
    ) -> cst.SimpleStatementLine | cst.FlattenSentinel[cst.SimpleStatementLine]:
        """An import whose names come from several modules now becomes several."""
        if len(updated_node.body) != 1 or not isinstance(statement := updated_node.body[0], cst.ImportFrom):
            return updated_node
        if statement.module is None or statement.relative or isinstance(statement.names, cst.ImportStar):
            return updated_node
        groups = _by_place(text(statement.module), statement.names)
        if len(groups) == 1:
            return updated_node
        lines = [
            updated_node.with_changes(
                body=[statement.with_changes(module=dotted(place), names=_separated(aliases), lpar=None, rpar=None)],
                leading_lines=updated_node.leading_lines if number == 0 else (),
            )
            for number, (place, aliases) in enumerate(groups.items())
        ]
        return cst.FlattenSentinel(lines)

    def visit_Attribute(self, node: cst.Attribute) -> bool:
        return self._new(node) is None

    def leave_Attribute(self, original_node: cst.Attribute, updated_node: cst.Attribute) -> cst.BaseExpression:
        new = self._new(original_node)
        if new is None:
            return updated_node
        place = new.rpartition(".")[0]
        if place != MODULES.get(text(original_node).rpartition(".")[0]) and new not in MODULES.values():
            AddImportsVisitor.add_needed_import(self._context, place)  # it is in another module than before
        return dotted(new)

    def _new(self, node: cst.Attribute) -> str | None:
        """The new form of a name that is written with the path of its module, as ``asyncio.sleep`` is."""
        name = self._names.of(node)
        if name is None:
            return None
        new = renamed(name)
        if text(node) != name:  # the module has another name here, and must have the name still
            module, _, rest = name.rpartition(".")
            if not name.startswith("channels") or new == f"{MODULES.get(module)}.{rest}" or new in MODULES.values():
                return None
        return new

    def leave_Name(self, original_node: cst.Name, updated_node: cst.Name) -> cst.BaseExpression:
        # A name that is imported alone, and has another name here: RedisChannelLayer.
        name = self._names.of(original_node)
        new = None if name is None else renamed(name)
        if name is None or new is None or original_node.value != name.rpartition(".")[2]:
            return updated_node
        return updated_node.with_changes(value=new.rpartition(".")[2])


def _by_place(module: str, aliases: Sequence[cst.ImportAlias]) -> dict[str, list[cst.ImportAlias]]:
    """The imported names by the modules that they come from now. Two names that became one are imported once."""
    groups: dict[str, dict[str, cst.ImportAlias]] = {}
    for alias in aliases:
        place, new = _moved(module, alias)
        groups.setdefault(place, {})[f"{text(new.name)} {new.evaluated_alias}"] = new
    return {place: list(found.values()) for place, found in groups.items()}


def _moved(module: str, alias: cst.ImportAlias) -> tuple[str, cst.ImportAlias]:
    """The module that an imported name comes from now, and its import."""
    name = text(alias.name)
    new = renamed(f"{module}.{name}")
    if new is None:
        return module, alias
    place, _, new_name = new.rpartition(".")
    return place, alias if new_name == name else alias.with_changes(name=cst.Name(new_name))


def _separated(aliases: Sequence[cst.ImportAlias]) -> list[cst.ImportAlias]:
    comma = cst.Comma(whitespace_after=cst.SimpleWhitespace(" "))
    *first, last = aliases
    separated = [alias.with_changes(comma=comma) for alias in first]
    return [*separated, last.with_changes(comma=cst.MaybeSentinel.DEFAULT)]


class _Used(cst.CSTVisitor):
    """Finds the imports of asyncio and the like that are used, and so go when nothing uses them any more."""

    def __init__(self, names: Names, context: CodemodContext) -> None:
        super().__init__()
        self._names = names
        self._context = context
        self._imported: list[tuple[str, str | None, str | None]] = []
        self._used: set[str] = set()

    def visit_Import(self, node: cst.Import) -> bool:
        names = [(text(one.name), one.evaluated_alias) for one in node.names]
        self._imported += [(name, None, alias) for name, alias in names if name in _LEFT_OVER]
        return False

    def visit_ImportFrom(self, node: cst.ImportFrom) -> bool:
        if node.module is None or node.relative or isinstance(node.names, cst.ImportStar):
            return False
        module = text(node.module)
        if module in _LEFT_OVER:
            self._imported += [(module, text(one.name), one.evaluated_alias) for one in node.names]
        return False

    def _use(self, node: cst.CSTNode) -> None:
        if (name := self._names.of(node)) is not None:
            self._used.add(name)

    def visit_Name(self, node: cst.Name) -> None:
        self._use(node)

    def visit_Attribute(self, node: cst.Attribute) -> None:
        self._use(node)

    def leave_Module(self, original_node: cst.Module) -> None:
        for module, name, alias in self._imported:
            path = module if name is None else f"{module}.{name}"
            if path in self._used or any(used.startswith(f"{path}.") for used in self._used):
                RemoveImportsVisitor.remove_unused_import(self._context, module, name, alias)


def note_used(module: cst.Module, context: CodemodContext) -> cst.Module:
    """Note the imports that may go; the module stays. An import that nothing has used may be there for others."""
    names = Names(module)
    names.module.visit(_Used(names, context))
    return names.module


def rewrite_imports(module: cst.Module, context: CodemodContext) -> cst.Module:
    """Rename imports and what is used through them; note those that are missing."""
    names = Names(module)
    return names.module.visit(_Imports(names, context))
