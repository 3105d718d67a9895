"""diffusers components to ``.mlpackage``, under the contract of a named converter release.

Importing this package imports neither torch nor diffusers nor coremltools; :func:`cached` answers without them when the
packages are there.
"""

from __future__ import annotations

from parity.convert.api import analyse_bits, bundle, cached, convert
from parity.convert.job import Settings
from parity.convert.multilingual import multilingual_projection
from parity.convert.record import describe

__all__ = ["Settings", "analyse_bits", "bundle", "cached", "convert", "describe", "multilingual_projection"]
