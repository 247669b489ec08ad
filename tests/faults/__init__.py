"""Rules that must hold in storms, crashes and floods. Run with ``pytest -m faults``."""
