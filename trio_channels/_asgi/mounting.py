"""The mount point of an application: the beginning of its URLs' paths, such as ``/app``, without a slash at its end."""

from __future__ import annotations

from .protocol import Scope


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
    path = scope["path"]
    found = _below(mount, path) if mount else None
    if found is None and root:
        found = _below(root, path)
    return mount, path if found is None and not (mount or root) else found


def _below(mount: str, path: str) -> str | None:
    """The path below a mount point; ``/apple/`` is not below ``/app``."""
    return path[len(mount) :] if path == mount or path.startswith(f"{mount}/") else None
