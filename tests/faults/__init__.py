"""Storms, crashes and floods: what must hold on the worst day. Run with ``pytest -m faults``."""
