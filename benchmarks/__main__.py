"""``python -m benchmarks [workload ...]``: every module here that has a ``WORKLOAD``."""

from __future__ import annotations

import importlib
import pkgutil
import sys

import benchmarks

from .harness import Workload, main


def workloads() -> list[Workload]:
    """The workloads of this package, in the order of their numbers."""
    names = (module.name for module in pkgutil.iter_modules(benchmarks.__path__))
    numbered = sorted((int(name[1:].partition("_")[0]), name) for name in names if _is_workload(name))
    return [importlib.import_module(f"benchmarks.{name}").WORKLOAD for _, name in numbered]


def _is_workload(name: str) -> bool:
    return name.startswith("p") and name[1:].partition("_")[0].isdigit()


if __name__ == "__main__":
    sys.exit(main(workloads()))
