"""Was this ControlNet made for this UNet?

A ControlNet is a copy of its UNet's first half with one output convolution for each skip connection and one for the
middle. Configurations can lie or be silent, weights cannot: every tensor of the first half must have the UNet's shape,
and the output convolutions must have the channels of the UNet's residuals. Only headers are read.

Not decided: fine-tuned models of one architecture fit each other's ControlNets in shape and mostly in effect.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from parity.convert.sizes import residuals
from parity.errors import UsageError
from parity.models import weights
from parity.models.source import Source

Shapes = Mapping[str, tuple[int, ...]]

_FIELDS: Final = ("cross_attention_dim", "block_out_channels", "layers_per_block")
_SHARED: Final = ("conv_in.", "time_embedding.", "add_embedding.", "down_blocks.", "mid_block.")
_OUTPUTS: Final = re.compile(r"controlnet_(?:down_blocks\.(\d+)|(mid_block))\.weight")


def require(source: Source, name: str, folder: Path, config: Mapping[str, Any]) -> None:
    """Raise when a ControlNet does not belong to a model's UNet.

    Parameters
    ----------
    source : Source
        The model.
    name : str
        The ControlNet's name, for the message.
    folder : pathlib.Path
        The ControlNet's.
    config : mapping
        Its configuration.

    Raises
    ------
    UsageError
        It was made for another base; the message says which field or tensor differs.
    FormatError, MissingError
        Its weights are damaged or not there.
    """
    unet = source.config("unet")
    for key in _FIELDS:
        _compare(name, source, key, _plain(config.get(key)), _plain(unet.get(key)))
    shapes = weights.shapes(folder)
    mine, theirs = _shared(source.shapes("unet")), _shared(shapes)
    for tensor, shape in mine.items():
        _compare(name, source, f"tensor {tensor}", theirs.get(tensor, "absent"), shape)
    if extra := sorted(theirs.keys() - mine.keys()):
        _compare(name, source, f"tensor {extra[0]}", theirs[extra[0]], "none")
    expected = [channels for channels, _, _ in residuals(unet, 64, 64)]
    _compare(name, source, "list of the residuals' channels", _outputs(shapes), expected)


def _compare(name: str, source: Source, what: str, theirs: Any, mine: Any) -> None:
    if theirs != mine:
        raise UsageError(
            f"ControlNet {name} was made for another base model: its {what} is {theirs}, "
            f"the UNet of {source.identifier} has {mine}"
        )


def _shared(shapes: Shapes) -> Shapes:
    return {name: shape for name, shape in shapes.items() if name.startswith(_SHARED)}


def _outputs(shapes: Shapes) -> list[int]:
    """Return the channels of a ControlNet's outputs, the middle block's last."""
    found = {}
    for name, shape in shapes.items():
        if match := _OUTPUTS.fullmatch(name):
            found[int(match[1]) if match[1] else len(shapes)] = shape[0]
    return [found[i] for i in sorted(found)]


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, (list, tuple)) else value
