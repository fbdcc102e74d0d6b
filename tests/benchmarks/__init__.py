"""Benchmarks of the real processes on a real broker: `make bench`, `make bench-peers`."""
