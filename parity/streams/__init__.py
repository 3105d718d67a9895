"""Random streams, bit for bit, by the name of what produces them.

>>> from parity import streams
>>> stream = streams.open("torch-cpu", seed=93)
>>> stream.normal((1, 4, 64, 64)).dtype
dtype('float32')

Nothing here uses NumPy's generators or torch: integer generators and transforms are written in NumPy's elementwise
operations, so that any machine gives the bits of any producer. With the extra ``fast``, :func:`accelerate` compiles the
most used ones, to the same bits.
"""

from parity.streams.acceleration import accelerate
from parity.streams.catalogue import names, open
from parity.streams.stream import Shape, Stream

__all__ = ["Shape", "Stream", "accelerate", "names", "open"]
