"""An inspection as a self-contained HTML page (no script, no outside resource; every text escaped)."""

from __future__ import annotations

from parity.contracts.capability import Matrix, Requirement
from parity.contracts.converters import Converters
from parity.contracts.inspection import Inspection
from parity.contracts.summary import (
    APPS,
    LEGEND,
    MARKS,
    headline,
    megabytes,
    ordered,
    overview,
    precision,
    sizes,
    title,
    windows,
)


def render(inspection: Inspection, matrices: list[Matrix], requirements: list[Requirement], tables: Converters) -> str:
    """Return the page.

    Parameters
    ----------
    inspection : Inspection
    matrices : list of Matrix
        One for each bundle, in order.
    requirements : list of Requirement
    tables : Converters
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    loader = PackageLoader("parity.contracts")
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    bundles = []
    for bundle, matrix in zip(inspection.bundles, matrices, strict=True):
        arranged = overview(matrix, bundle)
        rows = [
            {
                "component": component,
                "title": title(component),
                "precision": precision(component),
                "size": megabytes(component.weight_bytes),
                "sizes": sizes(component),
                "windows": windows(component.windows, tables),
                "evidence": [(item.text, windows(item.windows, tables)) for item in component.evidence],
            }
            for component in ordered(bundle.components)
        ]
        bundles.append({"bundle": bundle, "headline": headline(bundle, tables), "rows": rows, "overview": arranged})
    return environment.get_template("inspection.html.j2").render(
        inspection=inspection, bundles=bundles, requirements=requirements, marks=MARKS, apps=APPS, legend=LEGEND
    )
