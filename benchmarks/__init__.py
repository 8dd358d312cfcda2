"""Benchmarks that name the peers: ``python -m benchmarks``.

Machines are noisy, so a figure here is a ratio or a difference within one run: the contestants take turns, and the
medians of the pairs are printed with their spread. Nothing in here asserts a time.
"""
