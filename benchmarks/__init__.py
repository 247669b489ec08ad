"""Benchmarks of trio-channels and its peers, interleaved in one run. ``python -m benchmarks`` runs all of them."""
