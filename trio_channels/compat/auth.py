"""The log-in functions, callable from asyncio code too."""

from __future__ import annotations

from .. import auth
from .crossing import two_flavoured

get_user = two_flavoured(auth.get_user)
login = two_flavoured(auth.login)
logout = two_flavoured(auth.logout)
