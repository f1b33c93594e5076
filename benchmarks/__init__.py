"""What the package costs: each result is compared with another from the same run.

``python -m benchmarks`` (or ``make bench``) prints one table and writes it to RESULTS.md.
"""
