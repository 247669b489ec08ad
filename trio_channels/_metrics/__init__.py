"""Figures that nothing else counts, snapshots of all figures, and their sums over processes."""
