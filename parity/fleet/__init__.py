"""How do many machines answer one run? Cells as tasks of Dask distributed, each asked in a process of its own.

The client holds the run's folder and alone writes it; workers compute, and keep each finished record until the client
has it. The extra ``fleet`` installs ``distributed``; nothing here imports it before it is needed.
"""
