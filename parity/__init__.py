"""Reproducibility and parity for Stable Diffusion across PyTorch and Core ML.

Importing this package imports nothing heavy: rooms are imported by the code that needs them.
"""

__version__ = "0.1.0"
