"""Benchmarks: trio-channels against its peers, in one run, interleaved. ``python -m benchmarks`` runs all of them."""
