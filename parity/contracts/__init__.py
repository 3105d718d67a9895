"""What each converter release writes and each consumer release reads, as data; inspection, capabilities, repair.

Importing this package imports neither torch nor diffusers nor coremltools.
"""

from __future__ import annotations

from parity.contracts.converters import (
    FAMILIES,
    ComponentContract,
    Converters,
    ConverterWindow,
    FeatureRule,
    converter,
    converters,
)
from parity.contracts.formula import Shape

__all__ = [
    "FAMILIES",
    "ComponentContract",
    "ConverterWindow",
    "Converters",
    "FeatureRule",
    "Shape",
    "converter",
    "converters",
]
