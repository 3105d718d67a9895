"""How are a package's protobuf and manifest read and written, so that equal content gives equal bytes?"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, Final

from parity.convert import workarounds
from parity.files import absorb
from parity.mil.package import write_manifest

_MODEL: Final = Path("Data/com.apple.CoreML/model.mlmodel")


def read_spec(path: Path) -> Any:
    """Read a package's protobuf (``Model``)."""
    workarounds.coremltools()
    from coremltools.proto import Model_pb2

    spec = Model_pb2.Model()
    spec.ParseFromString((path / _MODEL).read_bytes())
    return spec


def write_spec(path: Path, spec: Any) -> None:
    """Write a package's protobuf without a date, in a fixed order, and a manifest to it."""
    workarounds.remove_conversion_date(spec.description.metadata.userDefined)
    (path / _MODEL).write_bytes(spec.SerializeToString(deterministic=True))
    write_manifest(path)


def content_hash(path: Path) -> str:
    """Return the SHA-256 of a package's files, by name and content."""
    total = hashlib.sha256()
    for file in sorted(p for p in path.rglob("*") if p.is_file()):
        total.update(f"{file.relative_to(path).as_posix()}:{file.stat().st_size}\n".encode())
        absorb(total, file)
    return total.hexdigest()
