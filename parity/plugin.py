"""The pytest plugin: options, one test per cell, the table at the end, the report.

It is loaded in every pytest run where the package is installed, so importing it costs little: models and torch are
imported when a test evaluates its cell. Results travel on the test reports, so ``pytest -n 2`` gives the same table.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Sequence
from typing import TYPE_CHECKING, Any

import pytest

from parity.errors import ParityError
from parity.files import require_writable
from parity.suite import options as suite_options
from parity.suite.options import OPTIONS, Option, Options

if TYPE_CHECKING:
    from pathlib import Path

    from parity.runs.folder import RunFolder
    from parity.suite.plan import Cell
    from parity.suite.run import Conclusion, Run

_HELD = "parity_held"  # ids of finished cells, on their way to xdist's workers
_OPTIONS: pytest.StashKey[Options] = pytest.StashKey()
_RECORD: pytest.StashKey[dict[str, Any]] = pytest.StashKey()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Declare the suite's options and their ini names."""
    group = parser.getgroup("parity", "Stable Diffusion across PyTorch and Core ML")
    for option in OPTIONS:
        group.addoption(f"--{option.name}", dest=_dest(option), **option.arguments())
        kind = "args" if option.kind == "several" else "string"
        parser.addini(_ini(option), option.help, type=kind, default=None)  # type: ignore[arg-type]


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker and, except in xdist's workers, the collector of results."""
    config.addinivalue_line("markers", "parity: compares Core ML with its PyTorch original; run with -m parity")
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(Summary(config), "parity-summary")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Make one test per cell of the matrix, named by what it asks."""
    if "parity_cell" not in metafunc.fixturenames:
        return
    from parity.suite import factors, plan, tolerance

    try:
        options = _options(metafunc.config)
        cells = plan.cells(options)
        factors.load(options.tolerances)
        tolerance.load(options.tolerances)  # a damaged table is an error of the whole run, as a file of cases is
    except ParityError as error:
        raise pytest.UsageError(f"parity: {error}") from None
    metafunc.parametrize("parity_cell", _arranged(cells, metafunc.config), ids=lambda cell: cell.sentence)


def _arranged(cells: Sequence[Cell], config: pytest.Config) -> list[Any]:
    """Return cells as parameters, those of the same models one after the other, so that models are loaded once.

    xdist gives its workers tests in this order, so each worker meets each backend once; with ``--dist loadgroup`` it
    gives them whole shares.
    """
    from parity.suite import plan

    order = plan.by_backend(cells)
    workers = getattr(config, "workerinput", {}).get("workercount")
    if workers is None:
        return [cells[index] for index in order]
    shares = plan.shares(cells, workers)
    return [pytest.param(cells[index], marks=pytest.mark.xdist_group(shares[index])) for index in order]


@pytest.fixture(scope="session")
def parity_run(pytestconfig: pytest.Config) -> Generator[Run, None, None]:
    """Give what asks the cells of this session; it keeps models and reference traces between tests."""
    from parity import memory
    from parity.suite.isolated import IsolatedRun
    from parity.suite.run import Run

    memory.end_quickly()
    options = _options(pytestconfig)
    with contextlib.closing(IsolatedRun(options) if options.isolated else Run(options)) as run:
        yield run


@pytest.fixture
def parity_check(request: pytest.FixtureRequest, parity_run: Run) -> Callable[[Cell], None]:
    """Give a function that asks a cell: it fails the test with the explanation, or skips it with the reason."""

    from parity.suite import expected

    def check(cell: Cell) -> None:
        parity_run.turn_to(cell)
        record = request.node.stash[_RECORD] = parity_run.ask(cell)
        unknown = record["verdict"] == "unknown"
        if expected.excused(record):
            pytest.xfail(record["expected"])
        if record["verdict"] == "fail" or record["bad_input"]:
            pytest.fail(record["explanation"], pytrace=False)
        if unknown and parity_run.options.parity_strict:
            pytest.fail(f"unknown, and the run is strict\n{record['explanation']}", pytrace=False)
        if unknown:
            pytest.skip(record["checks"][record["decisive"]]["message"])

    return check


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Attach the outcome to the report of the call, which xdist sends to the controller."""
    report = yield
    if report.when == "call" and _RECORD in item.stash:
        report.parity = item.stash[_RECORD]  # type: ignore[attr-defined]
    return report


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the cells that the run's folder holds already."""
    if hasattr(config, "workerinput"):
        held = set(config.workerinput.get(_HELD, ()))
    else:
        summary: Summary = config.pluginmanager.get_plugin("parity-summary")  # type: ignore[assignment]
        cells = [cell for item in items if (cell := _cell(item)) is not None]
        held = set(summary.open_folder(cells) if cells else ())
    left_out = [item for item in items if (cell := _cell(item)) is not None and cell.id in held]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]


def _cell(item: pytest.Item) -> Cell | None:
    return item.callspec.params.get("parity_cell") if hasattr(item, "callspec") else None


class Summary:
    """Collects the outcomes of a run; writes its folder as they come, the table and the report at its end."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._records: list[dict[str, Any]] = []
        self._held: list[str] = []
        self._folder: RunFolder | None = None
        self._opened = contextlib.ExitStack()
        self._unwritten = ""
        self._page = ""

    def open_folder(self, cells: Sequence[Cell] | None = None) -> list[str]:
        """Take the run's folder, where there is to be one, and return the ids of cells that are finished in it.

        Parameters
        ----------
        cells : sequence of Cell, optional
            Those of this session; under xdist the workers alone know what is deselected, and all are planned.
        """
        options = _options(self._config)
        if options.parity_report is not None and not self._config.option.collectonly:
            try:
                require_writable(options.parity_report, "--parity-report")
            except ParityError as error:
                raise pytest.UsageError(f"parity: {error}") from None
        if options.run_dir is None or self._folder is not None or self._config.option.collectonly:
            return self._held
        from parity.runs.folder import Plan, open_run
        from parity.suite import plan
        from parity.suite.question import planned, question

        try:
            listed = plan.cells(options)
            if cells is not None:
                chosen = {cell.id for cell in cells}
                listed = [cell for cell in listed if cell.id in chosen]
            wanted = Plan(question(options), planned(listed, options), options.machine)
            self._folder = self._opened.enter_context(open_run(options.run_dir, wanted, resume=options.resume))
        except ParityError as error:
            raise pytest.UsageError(f"parity: {error}") from None
        self._records += self._folder.held.values()
        self._held = list(self._folder.held)
        return self._held

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: Any) -> None:
        """Tell a worker of xdist which cells are finished: those with which the session began, also to a later one."""
        node.workerinput[_HELD] = self.open_folder()

    def pytest_unconfigure(self) -> None:
        """Let the folder go."""
        self._opened.close()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Keep what :func:`pytest_runtest_makereport` attached; make a record where a worker of xdist died."""
        if hasattr(report, "parity"):
            self._keep(report.parity)
        elif report.failed and report.when not in ("setup", "call", "teardown"):  # xdist's word for a crash is "???"
            for record in self._lost(report):
                self._keep(record)

    def _keep(self, record: dict[str, Any]) -> None:
        self._records.append(record)
        if self._folder is None or self._unwritten:
            return
        try:
            self._folder.add(record)
        except ParityError as error:
            self._unwritten = str(error)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_logfinish(self) -> None:
        """End the session once its folder cannot be written: what is computed from then on would be lost."""
        if self._unwritten:
            pytest.exit(f"parity: {self._unwritten}", returncode=2)

    def _not_asked(self, session: pytest.Session) -> list[dict[str, Any]]:
        """Make the records of cells that a stopped session left out; under xdist, only workers know their items."""
        from parity.suite.run import not_asked

        asked = {record["id"] for record in self._records}
        calls = [item.callspec.params for item in session.items if hasattr(item, "callspec")]
        cells: list[Cell] = [params["parity_cell"] for params in calls if "parity_cell" in params]
        return [not_asked(cell, _options(self._config)) for cell in cells if cell.id not in asked]

    def _lost(self, report: pytest.TestReport) -> list[dict[str, Any]]:
        from parity.suite import plan
        from parity.suite.run import stopped

        options = _options(self._config)
        name = report.nodeid.partition("]@")[0].removesuffix("]")  # behind it, the share of --dist loadgroup
        lost = [cell for cell in plan.cells(options) if name.endswith(f"[{cell.sentence}")]
        return [stopped(cell, options, "worker died", f"worker died: {report.longreprtext}") for cell in lost]

    @pytest.hookimpl(tryfirst=True)  # before xdist waits for its workers' ends
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Fail a run that compared no candidate, count what was not asked, and write the report."""
        stopped = session.shouldfail or session.shouldstop or session.exitstatus == pytest.ExitCode.INTERRUPTED
        if self._records and stopped:
            self._records += self._not_asked(session)
        if self._held and session.exitstatus == pytest.ExitCode.NO_TESTS_COLLECTED:  # all of them were finished
            session.exitstatus = pytest.ExitCode.OK
        if self._records and session.exitstatus == pytest.ExitCode.OK and self._conclusion().code:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED
        if self._records and (folder := _options(self._config).parity_report) is not None:
            self._write_page(session, folder)

    def _write_page(self, session: pytest.Session, folder: Path) -> None:
        """Write the report; whatever hinders it costs neither the table nor the end of xdist's workers."""
        from parity.report import html as page
        from parity.suite.run import crash

        self._sort()
        try:
            self._page = f"report: {page.write(self._records, folder, self._conclusion())}"
        except (ParityError, OSError) as error:
            where = error.filename if isinstance(error, OSError) else None
            said = f"{where}: {error.strerror}" if isinstance(error, OSError) and where else error
            self._page = f"parity: no report: {said}"
            session.exitstatus = 2  # bad input, as for a run's folder
        except Exception as error:  # a defect of ours or of a library
            self._page = f"parity: no report: {crash(error)}"
            session.exitstatus = pytest.ExitCode.INTERNAL_ERROR

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        """Print the table and where the report is."""
        if not self._records:
            return
        from parity.report import table

        self._sort()
        conclusion = self._conclusion()
        terminalreporter.section("parity")
        terminalreporter.write_line(
            table.render(self._records, width=table.columns(), color=terminalreporter.hasmarkup)
        )
        for message in (*conclusion.messages, *self._lists()):
            terminalreporter.write_line(message)
        if self._held:
            terminalreporter.write_line(f"{len(self._held)} cells were finished in {_options(self._config).run_dir}")
        for line in self._folder.skipped if self._folder is not None else ():
            terminalreporter.write_line(line)
        if self._page:
            terminalreporter.write_line(self._page)

    def _sort(self) -> None:
        """Put records into the order of their plan, so that any number of workers gives the same report."""
        from parity.suite import plan

        order = {cell.id: number for number, cell in enumerate(plan.cells(_options(self._config)))}
        self._records.sort(key=lambda record: order.get(record["id"], len(order)))

    def _lists(self) -> list[str]:
        """Return what stands in lists of the user's and speaks of no cell, where the whole run was asked."""
        from parity.suite.listed import unused

        config = self._config
        chosen = config.option.keyword or any("::" in word for word in config.args)
        return [] if chosen else unused(_options(config), [record["id"] for record in self._records])

    def _conclusion(self) -> Conclusion:
        from parity.suite.run import conclude

        return conclude(self._records, _options(self._config))


def _options(config: pytest.Config) -> Options:
    if _OPTIONS not in config.stash:
        given = {option.key: config.getoption(_dest(option)) for option in OPTIONS}
        config.stash[_OPTIONS] = suite_options.read(given, lambda option: config.getini(_ini(option)))
    return config.stash[_OPTIONS]


def _dest(option: Option) -> str:
    return f"parity_option_{option.key}"


def _ini(option: Option) -> str:
    return f"parity_{option.name.replace('-', '_').removeprefix('parity_')}"
