"""``parity gate``: is the compressed, converted or repaired model still as good? Statistics over many prompts."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TextIO

from parity.commands import documents
from parity.errors import FormatError, MissingError, UsageError
from parity.files import require_writable
from parity.suite import options as suite_options

if TYPE_CHECKING:
    import numpy as np

    from parity.commands.records_of_runs import Gate
    from parity.suite.gate.run import Answer, Asked
    from parity.suite.gate.statistics import Plan
    from parity.suite.options import Options

_SHARED: Final = ("model-version", "models", "compute-unit", "coreml-runtime", "backend", "device")
_SPREADS: Final = (0.02, 0.05, 0.1, 0.2, 0.4)  # of paired differences, as shares of the mean score
_MOST: Final = 1 << 20  # bytes of a file of prompts


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    for option in suite_options.OPTIONS:
        if option.name in _SHARED:
            parser.add_argument(f"--{option.name}", dest=option.key, **option.arguments())
    parser.add_argument("--base", metavar="NAME[:WORD…]", help="compare with this backend instead of the original")
    parser.add_argument("--score", metavar="NAME", default="", help="shapes, ssimulacra2, image_ssim, module:function")
    parser.add_argument(
        "--prompts", type=Path, metavar="FILE", help="a prompt a line; default: the shipped models' own"
    )
    parser.add_argument("--pictures", type=int, default=64, metavar="N", help="prompts that are drawn; default: 64")
    parser.add_argument("--seeds", type=int, default=1, metavar="N", help="seeds of each prompt, averaged; default: 1")
    for name, value, text in (
        ("margin", 0.03, "the loss to find, as a share of the mean score"),
        ("alarms", 0.01, "largest probability that a model which is as good fails"),
        ("power", 0.9, "wanted probability that a model which lost the margin fails"),
        ("risk", 0.05, "largest probability that a model which lost the margin passes"),
    ):
        parser.add_argument(f"--{name}", type=float, default=value, metavar="SHARE", help=f"{text}; default: {value}")
    parser.add_argument("--scheduler", default="dpm++", metavar="NAME", help="default: dpm++")
    parser.add_argument("--steps", type=int, default=20, metavar="N", help="default: 20")
    parser.add_argument("--guidance-scale", type=float, default=5.0, metavar="X", help="default: 5")
    parser.add_argument("--rng", default="torch-cpu", metavar="NAME", help="random stream; default: torch-cpu")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="seed of the first picture; default: 0")
    parser.add_argument("--plan", action="store_true", help="say what the run will find, draw nothing")
    parser.add_argument("-o", "--output", type=Path, metavar="DIR", help="write gate.json and the worst pairs there")
    documents.declare(parser, "what gate.json holds")


def main(arguments: argparse.Namespace) -> int:
    """State the power, draw, and decide: 0 if a loss is excluded for all candidates, 1 if not, 2 for bad input."""
    from parity.suite.gate.statistics import Plan

    names = ("margin", "alarms", "power", "risk")
    plan = Plan(arguments.pictures, **{name: getattr(arguments, name) for name in names})
    print(plan.sentence(), file=sys.stderr if arguments.json else sys.stdout)
    if arguments.plan:
        return _state(plan, as_json=arguments.json)
    if arguments.output is not None:
        require_writable(arguments.output, "-o")
    options = _options(arguments)
    from parity.suite.gate import run
    from parity.suite.stage import Stage

    asked = _asked(arguments, options, plan)
    cells = run.candidates(options)
    base = run.candidates(_options(arguments, backend=(arguments.base,)))[0] if arguments.base else None
    stage = Stage(options)
    gate = run.Gate(
        asked,
        run.drawer(stage, None),
        run.drawer(stage, base) if base else None,
        say=lambda text: print(f"  {text}", file=sys.stderr),
    )
    answers: dict[str, Answer] = {}
    for cell in cells:
        answers[cell.numerics] = answer = gate.compare(run.drawer(stage, cell))
        told = f"{answer.finding.verdict}: {options.model_version} on {cell.numerics}: {answer.finding.sentence()}"
        print(told, file=sys.stderr if arguments.json else sys.stdout)
    document = _document(asked, answers, base.numerics if base else stage.reference.numerics)
    if arguments.json:
        documents.write(document)
    if arguments.output is not None:
        _write(arguments.output, document, answers, told=sys.stderr if arguments.json else sys.stdout)
    return int(any(str(answer.finding.verdict) != "pass" for answer in answers.values()))


def _state(plan: Plan, *, as_json: bool) -> int:
    """Say what a run will find, for several spreads of the differences."""
    from parity.commands.records_of_runs import Expected, GatePlan

    expected = [Expected(spread, plan.reached(spread), plan.passes(spread), plan.needed(spread)) for spread in _SPREADS]
    if as_json:
        documents.write(GatePlan(asdict(plan), plan.largest_spread(), tuple(expected)))
        return 0
    for one in expected:
        print(
            f"  spread {one.spread:4.0%}: power {one.power:.2f}, a model as good passes with {one.passes:.2f}; "
            f"{one.prompts} prompts for power {plan.power:.2g}"
        )
    return 0


def _options(arguments: argparse.Namespace, **changes: Any) -> Options:
    """Return the suite's options that name model, candidates and device."""
    from dataclasses import replace

    return replace(suite_options.read(vars(_given(arguments))), compatibility="none", **changes)


def _given(arguments: argparse.Namespace) -> argparse.Namespace:
    """Leave out this command's own options that are called like some of the suite's."""
    shared = {option.key for option in suite_options.OPTIONS if option.name in _SHARED}
    return argparse.Namespace(**{name: value for name, value in vars(arguments).items() if name in shared})


def _asked(arguments: argparse.Namespace, options: Options, plan: Plan) -> Asked:
    from parity import streams
    from parity.pipelines.request import Request
    from parity.suite.gate import scores
    from parity.suite.gate.run import Asked

    shapes = options.model_version.startswith("shapes-sd")
    if not (arguments.score or shapes):
        raise UsageError("--score is needed for your model: ssimulacra2, or module:function, see docs/gate.md")
    if arguments.prompts is None and not shapes:
        raise UsageError("--prompts FILE is needed for your model: a text file with a prompt a line")
    if arguments.seeds < 1:
        raise UsageError(f"--seeds {arguments.seeds}: at least 1 is needed")
    if arguments.rng not in streams.names():
        raise UsageError(f"--rng {arguments.rng}: no such stream; there are {', '.join(streams.names())}")
    score = scores.find(arguments.score or scores.SHAPES)
    prompts = _prompts(arguments.prompts, plan.prompts) if arguments.prompts else scores.shapes_prompts(plan.prompts)
    request = Request(
        task="txt2img", prompt="", scheduler=arguments.scheduler, steps=arguments.steps,
        guidance_scale=arguments.guidance_scale,
    )  # fmt: skip
    return Asked(tuple(prompts), arguments.seeds, request, arguments.rng, arguments.seed, score, plan)


def _prompts(path: Path, count: int) -> list[str]:
    """Read the first prompts of a file; a prompt that stands there twice is one prompt."""
    try:
        if path.stat().st_size > _MOST:
            raise FormatError(f"--prompts {path}: larger than {_MOST} bytes")
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        raise MissingError(f"--prompts {path}: no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise FormatError(f"--prompts {path}: not a readable text file: {error}") from None
    found = list(dict.fromkeys(line.strip() for line in lines if line.strip()))
    if len(found) < count:
        raise UsageError(
            f"--prompts {path}: {len(found)} different prompts, and {count} are asked for; prompts are what is "
            "sampled, so more seeds do not replace them: add prompts, or ask for fewer with --pictures"
        )
    return found[:count]


def _document(asked: Asked, answers: dict[str, Answer], base: str) -> Gate:
    from parity.commands.records_of_runs import Gate

    return Gate(
        base,
        asked.score.name,
        asdict(asked.plan),
        asked.prompts,
        tuple(tuple(case.seed for case in asked.cases(number)) for number in range(len(asked.prompts))),
        {
            name: {
                **{key: value for key, value in asdict(answer.finding).items() if key not in ("plan", "verdict")},
                "verdict": str(answer.finding.verdict),
                "base": answer.base.tolist(),
                "candidate": answer.candidate.tolist(),
            }
            for name, answer in answers.items()
        },
    )


def _write(folder: Path, document: Gate, answers: dict[str, Answer], *, told: TextIO) -> None:
    from parity.files import replacing

    with replacing(folder / "gate.json") as scratch:
        scratch.write_text(json.dumps(documents.plain(document), indent=1) + "\n", encoding="utf-8")
    print(f"scores: {folder / 'gate.json'}", file=told)
    for number, (name, answer) in enumerate(answers.items()):
        path = folder / f"worst-{number}.png"
        _draw(answer.worst, path)
        print(f"largest losses on {name}, base above: {path}", file=told)


def _draw(worst: Sequence[tuple[str, np.ndarray, np.ndarray]], path: Path) -> None:
    import numpy as np
    from PIL import Image

    from parity.files import replacing

    columns = [np.concatenate([base, candidate], axis=0) for _, base, candidate in worst]
    with replacing(path) as scratch:
        Image.fromarray(np.concatenate(columns, axis=1)).save(scratch, "PNG")
