"""The mount point of an application: the beginning of its URLs' paths, such as ``/app``, without a slash at its end."""

from __future__ import annotations

from .protocol import Scope


def below(mount: str, path: str) -> str | None:
    """The path below a mount point; None if the path is not below it, as ``/apple/`` is not below ``/app``."""
    if not mount or path == mount or path.startswith(f"{mount}/"):
        return path[len(mount) :]
    return None


def complete(scope: Scope) -> None:
    """Make the path of a scope begin with its ``root_path``, as the ASGI specification has it.

    hypercorn gives the path of the request. A proxy that serves below a prefix may have taken that off.
    """
    mount = scope["root_path"].rstrip("/")
    if below(mount, scope["path"]) is None:
        scope["path"] = mount + scope["path"]
