"""What is a converter window: names, dtypes and shapes of everything that a stretch of the converter's history writes?

A :class:`ConverterWindow` gives a :class:`ComponentContract` for each network and model family, whose
:class:`FeatureRule` entries state names, dtypes and shapes as formulas. :mod:`parity.contracts.converters` reads them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date

from parity.contracts.formula import Shape
from parity.errors import UsageError

Written = tuple[tuple[str, str, str], ...]

FAMILY_NAMES = {
    "sd1": "Stable Diffusion 1",
    "sd2": "Stable Diffusion 2",
    "sdxl": "SDXL",
    "sdxl-refiner": "the SDXL refiner",
    "sd3": "Stable Diffusion 3",
}
FAMILIES = tuple(FAMILY_NAMES)


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
        >>> from parity.contracts import converter
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
    components : tuple of ComponentContract
        What it writes.
    written : tuple of (str, str, str)
        Window, component and family of all contracts of the table, for messages.
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
    written: Written = field(repr=False, compare=False, default=())

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
        raise UsageError(
            f"converter {self.name} writes no {name} of family {family}; {_writers(self.written, name, family)}"
        )


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


def _writers(written: Written, name: str, family: str) -> str:
    found = [window for window, component, known in written if (component, known) == (name, family)]
    if found:
        return f"written by {found[0]} to {found[-1]}" if len(found) > 1 else f"written by {found[0]} only"
    families = dict.fromkeys(known for _, component, known in written if component == name)
    if families:
        return f"no window does; there is one for {', '.join(families)}"
    return f"known components are {', '.join(dict.fromkeys(component for _, component, _ in written))}"
