"""Does the reference runtime pass coremltools' own tests?

The coremltools wheel ships its tests: every operator of every opset, the ML Program backend, the torch front end, the
prediction API. They compare what a model predicts with NumPy or PyTorch, but away from macOS they predict nothing. Here
they run unmodified through `parity.coreml.shim`::

    python -m parity.coreml.conformance quick          # a selection, tens of seconds
    python -m parity.coreml.conformance                # all groups, many minutes
    python -m parity.coreml.conformance operators -n 2 -- -k conv

``groups.toml`` chooses the tests and ``expected.toml`` lists those that fail, each with its reason. A run succeeds when
nothing else fails and, where a whole group ran, every entry that speaks of it still matches a failing test.
"""
