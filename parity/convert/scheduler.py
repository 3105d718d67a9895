"""What does the converted network predict, and under which noise schedule was it trained?

Nothing in a package tells: a network that predicts velocity has the features of one that predicts noise, and a consumer
that takes it for the other draws a wrong picture. So the checkpoint's own ``scheduler_config.json`` is laid beside the
packages, unchanged; :func:`parity.contracts.inspect.inspect` reads it there. No released consumer does.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

from parity.errors import UsageError
from parity.files import replacing
from parity.models.source import Source

FILE: Final = "scheduler_config.json"
_PRIVATE: Final = ("_use_default_values", "_name_or_path")  # of a loaded pipeline: not part of the schedule


def configuration(source: Source) -> dict[str, Any]:
    """Return the checkpoint's scheduler configuration: class, training betas, spacing, kind of prediction."""
    config = dict(source.configs["scheduler"])
    if source.pipeline is not None:  # its values can be arrays; diffusers turns them into JSON
        config = json.loads(source.pipeline.scheduler.to_json_string())
    return {name: value for name, value in config.items() if name not in _PRIVATE}


def check(folder: Path, source: Source, *, force: bool) -> None:
    """Refuse a folder that holds the schedule of another model.

    Raises
    ------
    UsageError
        Names the file and what to do.
    """
    path = folder / FILE
    if not path.exists() or force or _read(path) == configuration(source):
        return
    raise UsageError(
        f"{path} exists and is not the schedule of {source.identifier}: it would misstate what one of the models "
        "predicts; name a folder of its own, remove the file or use --force"
    )


def write(folder: Path, source: Source) -> Path:
    """Write the configuration into a folder, replacing what is there; return its path."""
    path = folder / FILE
    config = configuration(source)
    if not path.exists() or _read(path) != config:
        with replacing(path) as new:
            new.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    return path


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):  # damaged: not the configuration
        return None
