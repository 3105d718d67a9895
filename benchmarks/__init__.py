"""Speed as ratios, measured side by side in one run; ``make bench`` or ``python -m benchmarks [NAME …]``.

Each module of this package has ``run(report)``: it measures a subject and what the user would run instead, alternating
between the two, and reports medians and their ratio. Nothing here is a test: a slow machine fails nothing.
"""
