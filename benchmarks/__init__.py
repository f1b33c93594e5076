"""What the package costs, each thing against another one that is measured in the same run.

``python -m benchmarks`` (or ``make bench``) prints one table and writes it to RESULTS.md.
"""
