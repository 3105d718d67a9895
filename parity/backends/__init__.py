"""Who runs the networks: PyTorch on a device, or Core ML on a compute unit of a runtime.

A backend supplies components (:mod:`parity.networks.signature`) and knows nothing about tasks.
"""
