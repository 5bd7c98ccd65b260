"""Benchmarks: `make bench`. Speed is compared within one run, on one machine, as ratios."""
