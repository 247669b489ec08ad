"""A deadline for every test here."""

from __future__ import annotations

from tests.server.conftest import safety  # noqa: F401  # a fixture
