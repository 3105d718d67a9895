"""The tasks, written once over components: who computes a network is none of their business.

A *component* is one network with named tensors in and named tensors out; any mixture of components, PyTorch here and
Core ML there, is a pipeline too. See :mod:`parity.networks.signature` for the names and
:mod:`parity.pipelines.diffusers` for the tasks.
"""
