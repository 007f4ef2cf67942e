"""Benchmarks: `edgeos bench NAME`. Each measures edgeos and its peers in the same run.

docs/benchmarks.md says how each figure comes about and what it means.
"""
