"""Settings: ``INSTALLED_APPS``, and dotted paths in strings, wherever they stand."""

from __future__ import annotations

import libcst as cst
from libcst.codemod import CodemodContext

from .names import renamed

#: Applications of Channels; the first becomes ours.
_APPLICATIONS = ("channels", "daphne")
OURS, STATICFILES = "trio_channels", "django.contrib.staticfiles"


class _Settings(cst.CSTTransformer):
    def leave_SimpleString(self, original_node: cst.SimpleString, updated_node: cst.SimpleString) -> cst.SimpleString:
        """A dotted path of Channels, such as the backend of a layer; and the header that its cookies come in."""
        value = original_node.evaluated_value
        if value == b"Set-Cookie":
            return _string(updated_node, "set-cookie")
        if not isinstance(value, str) or not value.startswith(("channels.", "channels_redis.")):
            return updated_node
        new = renamed(value)
        return updated_node if new is None else _string(updated_node, new)

    def leave_Assign(self, original_node: cst.Assign, updated_node: cst.Assign) -> cst.Assign:
        names = [target.target.value for target in original_node.targets if isinstance(target.target, cst.Name)]
        return _with_applications(updated_node) if "INSTALLED_APPS" in names else updated_node  # type: ignore[return-value]

    def leave_AugAssign(self, original_node: cst.AugAssign, updated_node: cst.AugAssign) -> cst.AugAssign:
        target = original_node.target
        is_list = isinstance(target, cst.Name) and target.value == "INSTALLED_APPS"
        return _with_applications(updated_node) if is_list else updated_node  # type: ignore[return-value]


def _with_applications(node: cst.Assign | cst.AugAssign) -> cst.Assign | cst.AugAssign:
    """Put our application in the place of those of Channels, and before that of static files."""
    value = node.value
    if not isinstance(value, cst.List | cst.Tuple):
        return node
    theirs = [element for element in value.elements if _value(element) in _APPLICATIONS]
    if not theirs:
        return node
    has_ours = any(_value(element) == OURS for element in value.elements)
    elements = [element for element in value.elements if element not in theirs]
    if not has_ours:
        first = theirs[0]
        new = first.with_changes(value=_string(cst.ensure_type(first.value, cst.SimpleString), OURS))
        before = list(value.elements).index(first)
        static = [place for place, element in enumerate(elements) if _value(element) == STATICFILES]
        place = min(before, *static) if static else min(before, len(elements))
        elements.insert(place, new)
    if elements and value.elements[-1] is not elements[-1]:  # keep the style of the last comma
        elements[-1] = elements[-1].with_changes(comma=value.elements[-1].comma)
        elements[:-1] = [
            element.with_changes(comma=value.elements[0].comma)
            if isinstance(element.comma, cst.MaybeSentinel) and len(value.elements) > 1
            else element
            for element in elements[:-1]
        ]
    return node.with_changes(value=value.with_changes(elements=elements))


def _value(element: cst.BaseElement) -> object:
    return element.value.evaluated_value if isinstance(element.value, cst.SimpleString) else None


def _string(node: cst.SimpleString, value: str) -> cst.SimpleString:
    """The same kind of string with another value."""
    return node.with_changes(value=f"{node.prefix}{node.quote}{value}{node.quote}")


def rewrite_settings(module: cst.Module, _context: CodemodContext) -> cst.Module:
    """Rewrite applications and dotted paths."""
    return module.visit(_Settings())
