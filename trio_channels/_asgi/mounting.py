"""The mount point of an application: the beginning of its URLs' paths, such as ``/app``, without a slash at its end."""

from __future__ import annotations

from urllib.parse import unquote

from ..exceptions import ConfigurationError
from .protocol import Scope


def check(root_path: str) -> None:
    """Raise ConfigurationError if a server cannot have this ``root_path``."""
    if root_path and not root_path.startswith("/"):
        raise ConfigurationError(f"root_path must begin with a slash, such as '/app'; got {root_path!r}")
    if (decoded := unquote(root_path)) != root_path:
        raise ConfigurationError(f"root_path must not be percent-encoded; got {root_path!r}, expected {decoded!r}")


def complete(scope: Scope) -> None:
    """Make the path of a scope begin with its ``root_path``, as the ASGI specification has it.

    hypercorn gives the path of the request. A proxy that serves below a prefix may have removed that.
    """
    mount, path = scope["root_path"].rstrip("/"), scope["path"]
    if path.startswith("/") and _below(mount, path) is None:  # not OPTIONS *
        scope["path"] = mount + path


def enter(scope: Scope, forced: str | None) -> tuple[str, str | None]:
    """The mount point of a scope's application, and the path below it; None if the path is not below it.

    The mount point is the ``root_path`` of the server, unless clients see another one, which is `forced`.
    """
    root: str = (scope.get("root_path") or "").rstrip("/")
    mount = forced.rstrip("/") if forced else root
    found = _below(root, scope["path"])
    if mount != root:
        further = _below(mount, scope["path"] if found is None else found)
        found = further if further is not None or not root else found
    return mount, found


def _below(mount: str, path: str) -> str | None:
    """The path below a mount point; ``/apple/`` is not below ``/app``."""
    return path[len(mount) :] if path == mount or path.startswith(f"{mount}/") else None
