"""Which rank had the batched products of attention, outside the UNet, in a release's own time?

The two forms themselves are in :mod:`parity.convert.folded`; nothing here imports torch.
"""

from __future__ import annotations

from typing import Final

from parity.contracts import ConverterWindow, converter

RANKS: Final = (3, 4)

# The first window whose own time had rank 4: coremltools could not read torch's attention before 8.0 (text encoders),
# and the converter switched it off in the VAE until C6.
_UNTIL: Final = {"text_encoder": "C8b", "text_encoder_2": "C8b", "vae_decoder": "C6", "vae_encoder": "C6"}


def rank(component: str, window: ConverterWindow) -> int | None:
    """Return the rank of a component's batched products in a window's own time; None where there is no choice.

    >>> from parity.contracts import converter
    >>> [rank("text_encoder", converter(name)) for name in ("0.2.0", "1.1.1", "main")], rank("unet", converter("0.2.0"))
    ([3, 3, 4], None)
    """
    until = _UNTIL.get(component)
    if until is None:
        return None
    return 3 if window.order < converter(until).order else 4
