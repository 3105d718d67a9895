"""An inspection as a self-contained HTML page (no script, no outside resource; every text escaped)."""

from __future__ import annotations

from typing import Any

from parity.contracts.capability import Matrix, Requirement
from parity.contracts.inspection import Inspection
from parity.contracts.platforms import UNITS
from parity.contracts.survey import Survey
from parity.contracts.windows import Converters
from parity.report.inspection.summary import (
    APPS,
    LEGEND,
    MARKS,
    NOTHING_KNOWN,
    SYSTEM_LEGEND,
    found_in,
    headline,
    letter,
    megabytes,
    needs,
    ordered,
    overview,
    precision,
    sizes,
    title,
    where_known,
    windows,
)


def render(
    inspection: Inspection,
    matrices: list[Matrix],
    surveys: list[Survey],
    requirements: list[Requirement],
    tables: Converters,
) -> str:
    """Return the page.

    Parameters
    ----------
    inspection : Inspection
        What was found.
    matrices : list of Matrix
        One for each bundle, in order.
    surveys : list of Survey
        Likewise.
    requirements : list of Requirement
        Demands, met and unmet.
    tables : Converters
        For the names of releases.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    loader = PackageLoader("parity.report")
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    bundles = []
    for bundle, matrix, survey in zip(inspection.bundles, matrices, surveys, strict=True):
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
        item = {"bundle": bundle, "headline": headline(bundle, tables), "rows": rows, "overview": arranged}
        judged = any(component.kind not in ("broken", "foreign") for component in bundle.components)
        bundles.append({**item, "systems": _systems(survey) if judged else None})
    return environment.get_template("inspection.html.j2").render(
        inspection=inspection,
        bundles=bundles,
        requirements=requirements,
        marks=MARKS,
        apps=APPS,
        legend=LEGEND,
        units=UNITS,
        system_legend=SYSTEM_LEGEND,
        nothing_known=NOTHING_KNOWN,
    )


def _systems(survey: Survey) -> dict[str, Any]:
    """Texts of the table of systems and compute units."""
    rows = [
        {
            "name": str(row.stretch),
            "cells": [(unit, row.verdicts[unit], [letter(number) for number in row.hazards[unit]]) for unit in UNITS],
        }
        for row in survey.rows
    ]
    notes = [
        {
            "letter": letter(number),
            "verdict": hazard.rule.verdict if hazard.read else "unknown",
            "found": found_in(hazard),
            "where": where_known(hazard),
            "hazard": hazard,
        }
        for number, hazard in enumerate(survey.hazards)
    ]
    return {"rows": rows, "notes": notes, "needs": needs(survey)}
