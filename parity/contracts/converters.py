"""What did a release of the ml-stable-diffusion converter write?

``tables/converters.toml`` (and any table that a user adds) is read once into the records of
:mod:`parity.contracts.windows`; a release tag, a window id or ``main`` names one of them.

Proved: the table is consistent (one contract for each component, family and window) and agrees with what
:mod:`parity.convert` writes. Not proved here: that the history itself is right; it was read from the public sources.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

from parity.contracts.formula import Shape
from parity.contracts.table import Table, read
from parity.contracts.windows import FAMILIES, ComponentContract, Converters, ConverterWindow, FeatureRule
from parity.errors import FormatError

_BUILT_IN = Path(__file__).parent / "tables" / "converters.toml"

_Made = dict[tuple[str, str, tuple[str, ...]], tuple[FeatureRule, ...]]


@lru_cache(maxsize=8)
def converters(extra: tuple[Path, ...] = ()) -> Converters:
    """Read the built-in table, then tables that a user adds.

    Parameters
    ----------
    extra : tuple of pathlib.Path
        TOML files with further ``[[window]]`` (placed last, or ``after = "C6"``) and ``[[component]]`` entries. A
        component of a later file wins over an earlier one of the same name, family, variant and window.
    """
    tables = [read(path) for path in (_BUILT_IN, *extra)]
    raw: list[Table] = []
    for table in tables:
        for entry in table.items("window"):
            after = entry.text("after", default="")
            ids = [known.text("id") for known in raw]
            if entry.text("id") in ids:
                raise entry.error("id", f"'{entry.text('id')}' is taken; give the window an id of its own")
            if after and after not in ids:
                raise entry.error("after", f"'{after}' is not a window; known are {', '.join(ids)}")
            raw.insert(ids.index(after) + 1 if after else len(raw), entry)
    ids = [entry.text("id") for entry in raw]
    entries = [entry for table in tables for entry in table.items("component")]
    made: _Made = {}
    windows = tuple(_window(entry, order, entries, ids, made) for order, entry in enumerate(raw))
    written = tuple((window.name, one.component, one.family) for window in windows for one in window.components)
    windows = tuple(replace(window, written=written) for window in windows)
    for entry in (*raw, *(entry for entry in entries if "stem" in entry.asked)):  # read by some window
        entry.finish()
    metadata = tables[0].table("metadata")
    licenses = metadata.table("license")
    return Converters(
        windows,
        metadata.table("author").text("template"),
        {name: {key: value for key, value in licenses.table(name).pairs()} for name in licenses.values},
        dict(metadata.table("keys").pairs()),
    )


def converter(release: str, *, extra: Iterable[Path] = ()) -> ConverterWindow:
    """Return the converter window of a release tag, a window id or ``main``.

    Examples
    --------
    >>> window = converter("0.3.0")
    >>> encoder = window.component("vae_encoder", family="sd1")
    >>> [rule.name for rule in encoder.inputs][:2]
    ['sample', 'diagonal_noise']
    >>> encoder.inputs[0].shape({"h": 64, "w": 64})
    (1, 3, 512, 512)
    """
    return converters(tuple(extra)).window(release)


def _window(entry: Table, order: int, components: list[Table], ids: list[str], made: _Made) -> ConverterWindow:
    window = ConverterWindow(
        id=entry.text("id"),
        releases=entry.texts("releases", default=()),
        since=entry.date("since"),
        commit=entry.text("commit", default=""),
        summary=entry.text("summary"),
        coremltools=entry.text("coremltools", default=""),
        specifications=entry.numbers("specifications"),
        batches=entry.numbers("batches"),
        attention=entry.texts("attention"),
        compression=entry.texts("compression", default=()),
        chunker=entry.text("chunker", default=""),
        causal_mask=entry.text("causal_mask", default="either"),
        output_dtypes=entry.texts("output_dtypes"),
        latent_size_flags=entry.texts("latent_size_flags", default=()),
        version_key=entry.text("version_key", default=""),
        order=order,
    )
    found: dict[tuple[str, str, str], ComponentContract] = {}
    origin: dict[tuple[str, str, str], Path] = {}
    for component in components:
        first = _position(component, "from", ids, default=0)
        last = _position(component, "until", ids, default=len(ids) - 1)
        if not first <= order <= last:
            continue
        for family in component.texts("families"):
            if family not in FAMILIES:
                raise component.error("families", f"'{family}' is not a family; known are {', '.join(FAMILIES)}")
            key = (component.text("name"), family, component.text("variant", default=""))
            if origin.get(key) == component.path:
                raise component.error("from", f"two contracts of {key[0]} for {family} in window {window.id}")
            found[key], origin[key] = _contract(component, window, family, made), component.path
    return replace(window, components=tuple(found.values()))


def _position(component: Table, key: str, ids: list[str], *, default: int) -> int:
    name = component.text(key, default="")
    if name and name not in ids:
        raise component.error(key, f"'{name}' is not a window; known are {', '.join(ids)}")
    return ids.index(name) if name else default


def _contract(entry: Table, window: ConverterWindow, family: str, made: _Made) -> ComponentContract:
    name = entry.text("name")
    specification = entry.number("specification", default=0)
    contract = ComponentContract(
        component=name,
        family=family,
        variant=entry.text("variant", default=""),
        inputs=_rules(entry, "inputs", (), made),
        outputs=_rules(entry, "outputs", window.output_dtypes, made),
        file_stem=entry.text("stem", default=f"Stable_Diffusion_version_{{model_id}}_{name}"),
        resource=entry.text("resource", default=""),
        compute=entry.text("compute", default="FLOAT16"),
        batches=entry.numbers("batches", default=window.batches),
        license=entry.text("license", default="none"),
        version_key=window.version_key if entry.flag("version_key", default=False) else "",
        description=entry.text("description", default=""),
        specification=(specification,) if specification else window.specifications,
        verified=entry.flag("verified", default=True),
    )
    if not contract.inputs or not contract.outputs:
        raise FormatError(f"{entry.where}: a component needs inputs and outputs")
    return contract


def _rules(entry: Table, side: str, default: tuple[str, ...], made: _Made) -> tuple[FeatureRule, ...]:
    """Read the features of one side once; windows that state the same dtypes share them."""
    key = (entry.where, side, default)
    if key not in made:
        made[key] = tuple(_rule(rule, default) for rule in entry.items(side))
    return made[key]


def _rule(entry: Table, default: tuple[str, ...]) -> FeatureRule:
    dtypes = entry.texts("dtype", default=default)
    known = {"FLOAT16", "FLOAT32", "INT32"}
    if not dtypes or not known.issuperset(dtypes):
        raise entry.error("dtype", f"must name some of {', '.join(sorted(known))}")
    rule = FeatureRule(
        name=entry.text("name"),
        dtypes=dtypes,
        shape_formula=Shape(entry.text("shape")),
        role=entry.text("role", default=""),
        repeated=entry.flag("repeated", default=False),
    )
    entry.finish()
    return rule
