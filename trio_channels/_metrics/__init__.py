"""Figures for monitoring: counts of connections, snapshots of everything that is counted, sums over processes."""
