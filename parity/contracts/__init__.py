"""What each converter release writes and each consumer release reads, as data; inspection, capabilities, repair.

Importing this package imports neither torch nor diffusers nor coremltools.
"""

from __future__ import annotations

from parity.contracts.capability import capabilities, require
from parity.contracts.consumers import Consumer, Consumers, consumers
from parity.contracts.converters import converter, converters
from parity.contracts.diff import diff
from parity.contracts.formula import Shape
from parity.contracts.inspect import inspect
from parity.contracts.windows import FAMILIES, ComponentContract, Converters, ConverterWindow, FeatureRule

__all__ = [
    "FAMILIES",
    "ComponentContract",
    "Consumer",
    "Consumers",
    "ConverterWindow",
    "Converters",
    "FeatureRule",
    "Shape",
    "capabilities",
    "consumers",
    "converter",
    "converters",
    "diff",
    "inspect",
    "require",
]
