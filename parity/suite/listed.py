"""What stands in the user's lists and is about nothing that a run asks: goldens, and expected failures?

They are listed, and fail nothing: a machine without the hardware, or an option, can be the reason. A golden that no
case uses any more protects nothing, though it looks as if it did.
"""

from __future__ import annotations

from collections.abc import Sequence

from parity.errors import ParityError
from parity.suite import case as cases
from parity.suite import expected
from parity.suite.goldens import store
from parity.suite.goldens.store import APPROVED, Golden
from parity.suite.options import Options

_AS = "-as-"  # behind it a series names the app's release that draws


def unused(options: Options, cells: Sequence[str]) -> list[str]:
    """Return a line for each kind of entry that no cell of a whole run is about.

    Parameters
    ----------
    options : Options
        Those of the run. Where they choose among the cells nothing is said; of goldens neither where they change what
        the cases say.
    cells : sequence of str
        Ids of the run's cells.
    """
    if options.cell:
        return []
    lines = expected.unmatched(expected.load(options.expected), cells)
    others = options.producers or options.seed is not None or options.rng is not None
    if others or options.golden_dir is None or not options.golden_dir.is_dir():
        return lines
    try:
        named = [one.id for one in of_no_case(store.everything(options.golden_dir), options)]
    except ParityError:  # said by the cells of the goldens
        return lines
    if named:
        more = f" and {len(named) - 3} more" if len(named) > 3 else ""
        lines.append(
            f"{len(named)} accepted goldens are of no case of this run: {', '.join(named[:3])}{more}; "
            f"see parity golden list --golden-dir {options.golden_dir}"
        )
    return lines


def of_no_case(goldens: Sequence[Golden], options: Options) -> list[Golden]:
    """Return the accepted goldens that are not in the series of one of the run's cases.

    Parameters
    ----------
    goldens : sequence of Golden
        All of a folder.
    options : Options
        Which cases: ``cases``, ``seed``, ``rng``.

    Raises
    ------
    ParityError
        The cases cannot be read.
    """
    slugs = {case.slug.split(_AS)[0] for case in cases.load(options.cases, seed=options.seed, rng=options.rng)}
    accepted = [one for one in goldens if one.standing == APPROVED]
    return [one for one in accepted if one.series.split("/")[1].split(_AS)[0] not in slugs]
