"""What is known about a folder of Core ML models: the records that every report, table and check is made from.

Everything here is plain data (frozen dataclasses of texts, numbers and tuples), so ``--json`` is a dump of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class DeclaredFeature:
    """An input or output as declared.

    Attributes
    ----------
    name : str
    dtype : str
        ``FLOAT16``, ``FLOAT32``, ``INT32``, … or the kind if it is no array.
    shape : tuple of int or None
        Default shape; (height, width) of an image. None where file and program leave a size open.
    description : str
    flexible : bool
        Other shapes than the default one are allowed.
    """

    name: str
    dtype: str
    shape: tuple[int | None, ...]
    description: str = ""
    flexible: bool = False

    @property
    def size(self) -> str:
        """The shape for readers, ``?`` where a size is open."""
        return f"({', '.join('?' if size is None else str(size) for size in self.shape)})"

    def agrees(self, other: DeclaredFeature) -> bool:
        """Tell whether two shapes can be the same; open sizes agree with any."""
        return len(self.shape) == len(other.shape) and all(
            None in pair or pair[0] == pair[1] for pair in zip(self.shape, other.shape, strict=True)
        )

    def __str__(self) -> str:
        return f"{self.name} {self.dtype} {self.size}{' flexible' if self.flexible else ''}"


@dataclass(frozen=True)
class Finding:
    """Something that a reader should know.

    Attributes
    ----------
    severity : str
        ``error`` (something cannot work), ``warning`` (it may not) or ``note``.
    where : str
        Path relative to the inspected folder.
    text : str
        What, and what to do.
    """

    severity: str
    where: str
    text: str


@dataclass(frozen=True)
class Evidence:
    """Why a component is ascribed to some converter windows; ``windows`` are those that the observation leaves."""

    text: str
    windows: tuple[str, ...]


@dataclass(frozen=True)
class Attention:
    """Attention of one kind and size in a program, and how often.

    Attributes
    ----------
    form : str
        ``products`` (matmul, softmax, matmul) or ``fused`` (one operator).
    rank : int
        Axes of the products and their softmax, the fewest that occur.
    batch, heads, queries, keys, width : int
        Sizes of (batch, heads, queries, keys) and (batch, heads, queries, width). With three axes the first counts as
        heads. 0 where an axis is not fixed, and for the keys of the fused operator.
    dtype : str
        ``fp16``, ``fp32``, …
    bias : bool
        Whether something (a mask, a bias) is added to the scores.
    count : int
    """

    form: str
    rank: int
    batch: int
    heads: int
    queries: int
    keys: int
    width: int
    dtype: str
    bias: bool
    count: int

    @property
    def elements(self) -> int:
        """Elements of the result."""
        return self.batch * self.heads * self.queries * self.width


@dataclass(frozen=True)
class Operator:
    """Operations of one type, dtype and rank of the (first) result; ``largest`` is the longest axis of any."""

    operator: str
    dtype: str
    rank: int
    largest: int
    count: int


@dataclass(frozen=True)
class Structure:
    """What a program is built of, as far as rules on systems and compute units ask for it.

    Attributes
    ----------
    attention : tuple of Attention
    operators : tuple of Operator
        Constants left out.
    flexible : tuple of str
        Inputs that have an axis without a fixed size.
    scaled_palettes : int
        Weights whose look-up table is multiplied by a scale for each channel.
    """

    attention: tuple[Attention, ...] = ()
    operators: tuple[Operator, ...] = ()
    flexible: tuple[str, ...] = ()
    scaled_palettes: int = 0


@dataclass(frozen=True)
class Palette:
    """A palettized weight that unpacks to wrong values, see :mod:`parity.contracts.palettes`.

    Attributes
    ----------
    tensor : str
        Name of the unpacked weight.
    shape : tuple of int
        Its shape.
    entries, used : int
        Entries of its look-up table, and those that indices point at (the most of any block's table).
    lost : tuple of float
        Values that stand in the table and that no index points at.
    """

    tensor: str
    shape: tuple[int, ...]
    entries: int
    used: int
    lost: tuple[float, ...]


@dataclass(frozen=True)
class Fingerprint:
    """What a program's operations tell.

    Attributes
    ----------
    operators : mapping of str to int
        Count of each operation type, constants left out.
    storage : mapping of str to int
        Bytes of weights by form: ``float16``, ``float32``, ``6-bit palette``, ``8-bit linear``, ``sparse``, …
    attention : str
        ``ORIGINAL``, ``SPLIT_EINSUM``, ``SPLIT_EINSUM_V2``, ``fused``, ``none`` or ``unread``.
    mask : str
        Causal mask of a text encoder: ``patched``, ``unpatched``, ``lost``, ``none`` or ``unread``, see
        :mod:`parity.contracts.causal`.
    mask_minimum : float or None
        Smallest value of that constant.
    structure : Structure or None
        None when the program could not be read.
    palettes : tuple of Palette
        Palettized weights that unpack to wrong values.
    """

    operators: Mapping[str, int] = field(default_factory=dict)
    storage: Mapping[str, int] = field(default_factory=dict)
    attention: str = "unread"
    mask: str = "unread"
    mask_minimum: float | None = None
    structure: Structure | None = None
    palettes: tuple[Palette, ...] = ()

    @property
    def compression(self) -> tuple[str, ...]:
        """Compressed forms of storage, e.g. ``("6-bit palette",)``."""
        return tuple(name for name in self.storage if "palette" in name or "linear" in name or "sparse" in name)


@dataclass(frozen=True)
class Component:
    """One model of a folder.

    Attributes
    ----------
    path : str
        Relative to the inspected folder.
    form : str
        ``mlpackage``, ``mlmodelc`` or ``mlmodel``.
    kind : str
        Component name of the converter tables, ``foreign`` for other Core ML models, ``broken`` for unreadable ones.
    named : str
        Component that the file name claims, empty when it claims none.
    chunk : int
        1 or 2 for half a denoiser, else 0.
    family : str
        ``sd1``, ``sd2``, ``sdxl``, ``sdxl-refiner``, ``sd3`` or empty.
    shapeless : tuple of str
        Outputs whose shape the description leaves out and the program states; ``outputs`` have it.
    contract : str
        Form of a VAE encoder (``legacy``, ``z``, ``x``) or of SDXL time ids (``flat``, ``rows``), else empty.
    sizes : mapping of str to int
        Values of the formulas' names, see ``tables/converters.toml``.
    windows : tuple of str
        Converter windows that can have written it; empty when none fits.
    evidence : tuple of Evidence
    hints : tuple of str
        Observations that suggest a window without excluding others.
    """

    path: str
    form: str
    kind: str
    named: str = ""
    chunk: int = 0
    family: str = ""
    contract: str = ""
    inputs: tuple[DeclaredFeature, ...] = ()
    outputs: tuple[DeclaredFeature, ...] = ()
    shapeless: tuple[str, ...] = ()
    specification: int = 0
    author: str = ""
    license: str = ""
    version: str = ""
    description: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict)
    weight_bytes: int = 0
    sizes: Mapping[str, int] = field(default_factory=dict)
    fingerprint: Fingerprint = field(default_factory=Fingerprint)
    windows: tuple[str, ...] = ()
    evidence: tuple[Evidence, ...] = ()
    hints: tuple[str, ...] = ()

    def input(self, name: str) -> DeclaredFeature | None:
        """Return the input of that name, or None."""
        return next((feature for feature in self.inputs if feature.name == name), None)

    def output(self, name: str) -> DeclaredFeature | None:
        """Return the output of that name, or None."""
        return next((feature for feature in self.outputs if feature.name == name), None)


@dataclass(frozen=True)
class Bundle:
    """Models that lie in one folder and are used together.

    Attributes
    ----------
    path : str
        Relative to the inspected folder, ``.`` for itself.
    layout : str
        ``packages``, ``compiled`` or ``mixed``.
    family, prediction : str
        ``prediction`` is ``epsilon``, ``v`` or ``unread``.
    windows : tuple of str
        Converter windows that can have written every component.
    facts : mapping of str to str
        What the rules of ``tables/consumers.toml`` ask for.
    findings : tuple of Finding
        Cross-checks between the components.
    """

    path: str
    layout: str
    components: tuple[Component, ...]
    tokenizer: tuple[str, ...]
    family: str
    prediction: str
    windows: tuple[str, ...]
    facts: Mapping[str, str]
    findings: tuple[Finding, ...]

    def component(self, kind: str, *, chunk: int = 0) -> Component | None:
        """Return the component of that kind (and chunk), or None; a compiled one is preferred to a package."""
        found = [c for c in self.components if c.kind == kind and c.chunk == chunk]
        return min(found, key=lambda c: c.form != "mlmodelc", default=None)


@dataclass(frozen=True)
class Inspection:
    """Everything that was found under a path.

    Attributes
    ----------
    path : str
        What the user named.
    single : bool
        True when one model was named instead of a folder; other components are then taken to be present and fitting.
    bundles : tuple of Bundle
    findings : tuple of Finding
        About the folder as a whole: unfinished downloads, links that leave it, foreign models.
    seconds : float
        Time that the inspection took.
    """

    path: str
    single: bool
    bundles: tuple[Bundle, ...]
    findings: tuple[Finding, ...]
    seconds: float

    @property
    def components(self) -> tuple[Component, ...]:
        """Components of all bundles."""
        return tuple(component for bundle in self.bundles for component in bundle.components)
