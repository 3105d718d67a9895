"""What did a release of the ml-stable-diffusion converter write?

Steps: ``tables/converters.toml`` (and any table that a user adds) is read once into frozen records; a release tag, a
window id or ``main`` names one :class:`ConverterWindow`; the window gives a :class:`ComponentContract` for each network
and model family, whose :class:`FeatureRule` entries state names, dtypes and shapes as formulas.

Proved: the table is consistent (one contract for each component, family and window) and agrees with what
:mod:`parity.convert` writes. Not proved here: that the history itself is right; it was read from the public sources.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date
from functools import lru_cache
from pathlib import Path
from typing import Any

from parity.contracts.formula import Shape
from parity.contracts.table import Table, read
from parity.errors import FormatError, UsageError

FAMILY_NAMES = {
    "sd1": "Stable Diffusion 1",
    "sd2": "Stable Diffusion 2",
    "sdxl": "SDXL",
    "sdxl-refiner": "the SDXL refiner",
    "sd3": "Stable Diffusion 3",
}
FAMILIES = tuple(FAMILY_NAMES)
_BUILT_IN = Path(__file__).parent / "tables" / "converters.toml"


@dataclass(frozen=True)
class FeatureRule:
    """One input or output of a contract.

    Attributes
    ----------
    name : str
        Feature name; ``additional_residual_{i}`` where the feature is repeated.
    dtypes : tuple of str
        ``FLOAT16``, ``FLOAT32`` or ``INT32``: what can be found, the first being what the converter writes.
    shape_formula : Shape
        Sizes as formulas, see the head of ``tables/converters.toml`` for the names.
    role : str
        What the tensor holds; serves as the feature's description.
    repeated : bool
        Whether the feature occurs for i = 0, 1, …
    """

    name: str
    dtypes: tuple[str, ...]
    shape_formula: Shape
    role: str
    repeated: bool = False

    @property
    def dtype(self) -> str:
        """The dtype that the converter writes."""
        return self.dtypes[0]

    def shape(self, sizes: Mapping[str, int]) -> tuple[int, ...]:
        """Compute the concrete shape; see :meth:`parity.contracts.formula.Shape.evaluate`."""
        return self.shape_formula.evaluate(sizes)

    def at(self, index: int) -> FeatureRule:
        """Return the rule of one repetition, its local names (``C_i``) made ``C_0``, ``C_1``, …"""
        if not self.repeated:
            raise UsageError(f"feature '{self.name}' is not repeated")
        text = self.shape_formula.text
        for name in self.shape_formula.names:
            if name.endswith("_i"):
                text = text.replace(name, f"{name[:-1]}{index}")
        return FeatureRule(self.name.format(i=index), self.dtypes, Shape(text), self.role)


@dataclass(frozen=True)
class ComponentContract:
    """What one converter window writes for one component of one family.

    Attributes
    ----------
    component, family, variant : str
        ``variant`` is empty but for the SDXL decoder of a custom VAE.
    inputs, outputs : tuple of FeatureRule
    file_stem, resource : str
        Name without suffix as ``.mlpackage`` and as compiled resource; ``{model_id}`` and the like are to be filled in.
    compute : str
        Compute precision, ``FLOAT16`` or ``FLOAT32``.
    batches : tuple of int
        Values of ``B`` that the window could write, the usual one first.
    license : str
        Key of :attr:`Converters.licenses`, or ``none``.
    version_key : str
        Value of the converter's own metadata key, empty where it is not written.
    specification : tuple of int
        Specification versions, the usual one first.
    verified : bool
        False where the contract was derived from sources that could not be read.
    """

    component: str
    family: str
    variant: str
    inputs: tuple[FeatureRule, ...]
    outputs: tuple[FeatureRule, ...]
    file_stem: str
    resource: str
    compute: str
    batches: tuple[int, ...]
    license: str
    version_key: str
    description: str
    specification: tuple[int, ...]
    verified: bool

    def feature(self, name: str) -> FeatureRule:
        """Return the input or output of that name (a repeated one by its number too)."""
        for rule in (*self.inputs, *self.outputs):
            if rule.name == name:
                return rule
            prefix = rule.name.removesuffix("{i}")
            if rule.repeated and name.startswith(prefix) and name[len(prefix) :].isdigit():
                return rule.at(int(name[len(prefix) :]))
        known = ", ".join(rule.name for rule in (*self.inputs, *self.outputs))
        raise UsageError(f"{self.component}: no feature '{name}'; there are {known}")

    def file_name(self, **ids: str) -> str:
        """Return the package's file name, every ``/`` of an id turned into ``_``.

        Examples
        --------
        >>> converter("0.4.0").component("unet", family="sd1").file_name(model_id="owner/model")
        'Stable_Diffusion_version_owner_model_unet.mlpackage'
        """
        try:
            stem = self.file_stem.format(**{key: value.replace("/", "_") for key, value in ids.items()})
        except KeyError as error:
            raise UsageError(f"the file name of {self.component} needs {error.args[0]}") from None
        return f"{stem}.mlpackage"


@dataclass(frozen=True)
class ConverterWindow:
    """A stretch of the converter's history in which the written files keep one form.

    Attributes
    ----------
    id, releases, since, commit, summary
        ``since`` is the date of the first commit; ``releases`` are the tags inside the window, possibly none.
    specifications, batches, attention, compression, chunker, causal_mask, latent_size_flags, coremltools
        What the window could write, see ``tables/converters.toml``.
    output_dtypes : tuple of str
        Dtypes found on outputs; two where the converter left them to the coremltools of the day.
    version_key : str
        Value of ``com.github.apple.ml-stable-diffusion.version``, empty before C5.
    order : int
        Position in time among all windows.
    """

    id: str
    releases: tuple[str, ...]
    since: date
    commit: str
    summary: str
    coremltools: str
    specifications: tuple[int, ...]
    batches: tuple[int, ...]
    attention: tuple[str, ...]
    compression: tuple[str, ...]
    chunker: str
    causal_mask: str
    output_dtypes: tuple[str, ...]
    latent_size_flags: tuple[str, ...]
    version_key: str
    order: int
    components: tuple[ComponentContract, ...] = field(repr=False, default=())

    @property
    def name(self) -> str:
        """Id and tags for people, e.g. ``C4c (0.4.0)``."""
        return f"{self.id} ({', '.join(self.releases)})" if self.releases else self.id

    def component(self, name: str, *, family: str, variant: str = "") -> ComponentContract:
        """Return the contract of a component.

        Parameters
        ----------
        name : str
            ``text_encoder``, ``text_encoder_2``, ``unet``, ``refiner``, ``control-unet``, ``controlnet``,
            ``vae_encoder``, ``vae_decoder``, ``safety_checker``, ``mmdit``, …
        family : str
            One of :data:`FAMILIES`.
        variant : str
            ``custom-vae`` for the SDXL decoder of a custom VAE.

        Raises
        ------
        UsageError
            When the window does not write it; the message names the windows that do.
        """
        for contract in self.components:
            if (contract.component, contract.family, contract.variant) == (name, family, variant):
                return contract
        raise UsageError(f"converter {self.name} writes no {name} of family {family}; {_writers(name, family)}")


@dataclass(frozen=True)
class Converters:
    """All windows in order of time, and the metadata texts that they write."""

    windows: tuple[ConverterWindow, ...]
    author_template: str
    licenses: Mapping[str, Mapping[str, str]]
    keys: Mapping[str, str]

    def window(self, release: str) -> ConverterWindow:
        """Find a window by id (``C4c``), release tag (``0.4.0``) or ``main``."""
        for window in self.windows:
            if release == window.id or release in window.releases:
                return window
        known = ", ".join(tag for window in self.windows for tag in (*window.releases, window.id))
        raise UsageError(f"unknown converter release '{release}'; known are {known}")

    def contracts(self, component: str) -> Iterator[tuple[ConverterWindow, ComponentContract]]:
        """Iterate over all windows' contracts of a component, in order of time."""
        for window in self.windows:
            for contract in window.components:
                if contract.component == component:
                    yield window, contract

    def components(self) -> tuple[str, ...]:
        """Return the components that any window writes."""
        return tuple(dict.fromkeys(contract.component for window in self.windows for contract in window.components))

    def sizes(self) -> tuple[str, ...]:
        """Return the names of the sizes that any contract reads off a model, and ``residuals``, their number."""
        shapes = {
            rule.shape_formula.text: rule.shape_formula
            for window in self.windows
            for contract in window.components
            for rule in (*contract.inputs, *contract.outputs)
        }
        names = dict.fromkeys(name for shape in shapes.values() for name in shape.names)
        return (*(name for name in names if not name.endswith("_i")), "residuals")


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


def _writers(name: str, family: str) -> str:
    found = [window.name for window, contract in converters().contracts(name) if contract.family == family]
    if found:
        return f"written by {found[0]} to {found[-1]}" if len(found) > 1 else f"written by {found[0]} only"
    families = dict.fromkeys(contract.family for _, contract in converters().contracts(name))
    if families:
        return f"no window does; there is one for {', '.join(families)}"
    components = dict.fromkeys(c.component for window in converters().windows for c in window.components)
    return f"known components are {', '.join(components)}"


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
    return ConverterWindow(**{**_fields(window), "components": tuple(found.values())})


def _fields(window: ConverterWindow) -> dict[str, Any]:
    return {name: getattr(window, name) for name in window.__dataclass_fields__}


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
