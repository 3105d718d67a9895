"""Do two implementations by others and ours compute the same? Random graphs, three ways.

* :mod:`parity.coreai.oracle.graphs`: random graphs as data, and as torch modules.
* :mod:`parity.coreai.oracle.judge`: one graph through PyTorch, the MIL runtime and Core AI, and who deviates.
* :mod:`parity.coreai.oracle.known`: disagreements that are known, each with whose fault it is and a reproducer.

``python -m parity.coreai.oracle --count 1000`` runs many and prints a table.
"""
