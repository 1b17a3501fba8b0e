"""Benchmarks: ratios within one run, never compared across machines. ``make bench`` runs them all."""
