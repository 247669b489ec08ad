"""The Redis of the tests of metrics."""

from ..layers.conftest import redis_server  # noqa: F401 - a fixture
