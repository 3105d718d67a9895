"""``parity latents``: write the noise that a producer would draw, or tell where and why two arrays of it part.

Exit codes: 0 written or equal, 1 different, 2 bad input.
"""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from parity import streams
from parity.commands import documents
from parity.errors import UsageError
from parity.streams import catalogue, compare, files
from parity.streams.draw_things import MODES
from parity.streams.programs import PROGRAMS, Asked, draw_like
from parity.streams.webui import Variation


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``parity latents``."""
    parser.add_argument("--rng", metavar="NAME", help=f"stream: {', '.join(streams.names())}")
    parser.add_argument("--seed", type=_integer, action="append", metavar="N", help="seed; with --compare, one to try")
    parser.add_argument("--shape", type=_shape, metavar="N,C,H,W", help="for example 1,4,64,64")
    parser.add_argument("--dtype", help="one that the stream draws; default: its first")
    parser.add_argument("--mean", type=float, default=0.0)
    parser.add_argument("--std", type=float, default=1.0)
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help="a .npy, .npz or .safetensors file")
    programs = parser.add_argument_group("as a program asks the stream (docs/streams.md says what each does)")
    programs.add_argument("--like", choices=tuple(PROGRAMS), metavar="NAME", help=", ".join(PROGRAMS))
    programs.add_argument("--images", type=_integer, default=1, metavar="N", help="images of a swift or mochi run")
    programs.add_argument("--draw", type=_integer, default=0, metavar="N", help="noise of step N: diffusers, a1111")
    programs.add_argument("--batch-index", type=_shape, metavar="I,J,…", help="items of a batch: comfyui")
    programs.add_argument("--subseed", type=_integer, action="append", metavar="N", help="variation seed: a1111")
    programs.add_argument("--subseed-strength", type=float, default=0.0, metavar="X", help="0 to 1: a1111")
    programs.add_argument("--resize-from", type=_shape, metavar="H,W", help="seed resize, in latents: a1111")
    programs.add_argument("--seed-delta", type=_integer, default=0, metavar="N", help="for step noise: a1111")
    programs.add_argument("--seed-mode", choices=MODES, default=MODES[0], help="of draw-things")
    parser.add_argument("--kernel", help="of torch-cpu: avx2, libm, avx2-unfused (Windows), system-libm (this machine)")
    parser.add_argument("--torch-version", metavar="X.Y", help="of torch-cpu: whose rules for half types hold")
    parser.add_argument(
        "--fused",
        action=argparse.BooleanOptionalAction,
        help="of torch-cpu's kernels libm and system-libm: std and mean by one fused multiply-add, as on arm64",
    )
    parser.add_argument(
        "--split",
        action=argparse.BooleanOptionalAction,
        help="of mlx and jax: split the key before each draw (mx.random.seed), or use the seed's own key",
    )
    parser.add_argument(
        "--partitionable", action=argparse.BooleanOptionalAction, help="of jax: number words as since 0.5, or as before"
    )
    parser.add_argument("--gpu", metavar="MODEL", help="of torch-cuda: a model such as A100")
    parser.add_argument("--multiprocessors", type=_integer, metavar="N", help="of torch-cuda, for a model not listed")
    parser.add_argument("--threads", type=_integer, metavar="N", help="of torch-cuda: resident on one multiprocessor")
    parser.add_argument(
        "--compare", nargs=2, metavar=("A", "B"), help="compare two files, or names of streams to be drawn for --shape"
    )
    parser.add_argument(
        "--detect", action="store_true", help="tell which kernel and rules this machine's torch follows"
    )
    documents.declare(parser)


def main(arguments: argparse.Namespace) -> int:
    """Run ``parity latents``."""
    if arguments.detect:
        return _detect(as_json=arguments.json)
    if arguments.compare:
        return _compare(arguments)
    for needed in ("seed", "shape") if arguments.like else ("rng", "seed", "shape"):
        if getattr(arguments, needed) is None:
            raise UsageError(f"--{needed} is needed; for example --rng torch-cpu --seed 93 --shape 1,4,64,64")
    if arguments.output:
        files.check_suffix(arguments.output)
    values, dtype = _draw(arguments)
    first = ", ".join(f"{value:.8g}" for value in values.reshape(-1)[:4].tolist())
    digest = hashlib.sha256(np.ascontiguousarray(values).reshape(-1).view(np.uint8).data).hexdigest()
    name = arguments.rng or arguments.like
    if arguments.output:
        files.save(arguments.output, values, dtype)
    if arguments.json:
        from parity.commands.records_of_streams import Drawn

        file = str(arguments.output) if arguments.output else None
        start = tuple(map(float, values.reshape(-1)[:4].tolist()))
        documents.write(Drawn(name, tuple(arguments.seed), dtype, tuple(values.shape), start, digest, file))
        return 0
    print(f"{name} seed {','.join(map(str, arguments.seed))}: {dtype} {list(values.shape)}")
    print(f"first values {first}")
    print(f"sha256 {digest}")
    if arguments.output:
        print(f"wrote {arguments.output}")
    return 0


def _draw(arguments: argparse.Namespace) -> tuple[np.ndarray, str]:
    seeds, shape = arguments.seed, arguments.shape
    scaled = (arguments.mean, arguments.std) != (0.0, 1.0)
    if arguments.like:
        if scaled:
            raise UsageError(
                "--mean and --std: programs draw standard normals and scale them afterwards; leave out --like"
            )
        if arguments.images < 1 or arguments.draw < 0:
            raise UsageError(
                f"--images {arguments.images}, --draw {arguments.draw}: at least 1 image, and draw 0 or later"
            )
        return draw_like(arguments.like, _asked(arguments))
    for option in _PROGRAMS_ONLY:
        if getattr(arguments, option) != _PROGRAMS_ONLY[option]:
            raise UsageError(f"--{option.replace('_', '-')}: only programs have that; give --like NAME")
    if len(seeds) != 1:
        raise UsageError("several --seed: only --like diffusers and a1111 have one generator for each item")
    dtype = arguments.dtype or catalogue.dtypes(arguments.rng)[0]
    stream = streams.open(arguments.rng, seeds[0], **_options(arguments, arguments.rng))
    return stream.normal(shape, dtype=dtype, mean=arguments.mean, std=arguments.std), dtype


_PROGRAMS_ONLY: dict[str, Any] = {
    **{"images": 1, "draw": 0, "batch_index": None, "subseed": None, "subseed_strength": 0.0},
    **{"resize_from": None, "seed_delta": 0, "seed_mode": "scale-alike"},
}


_DEFAULTS = {"a1111": "torch-cuda", "python": "numpy-legacy"}  # whose options are meant where no stream is named


def _asked(arguments: argparse.Namespace) -> Asked:
    resize = arguments.resize_from
    if resize is not None and len(resize) != 2:
        raise UsageError(f"--resize-from {','.join(map(str, resize))}: expected H,W of latents, such as 64,64")
    return Asked(
        seeds=tuple(arguments.seed),
        shape=arguments.shape,
        rng=arguments.rng,
        dtype=arguments.dtype,
        images=arguments.images,
        draw=arguments.draw,
        batch_index=arguments.batch_index,
        variation=Variation(tuple(arguments.subseed or ()), arguments.subseed_strength, resize),
        seed_delta=arguments.seed_delta,
        mode=arguments.seed_mode,
        options=_options(arguments, arguments.rng or _DEFAULTS.get(arguments.like, "torch-cpu")),
    )


def _compare(arguments: argparse.Namespace) -> int:
    seeds = arguments.seed or []
    a, b = (_operand(name, arguments) for name in arguments.compare)
    difference = compare.compare(a, b)
    equal = difference is not None and difference.differing == 0 and a.dtype == b.dtype
    if arguments.json:
        return _print_comparison(difference, () if equal else compare.explain(a, b, seeds=seeds or (93, 0, 42)), equal)
    if difference is not None and equal:
        print(difference)
        return int(difference.undefined > 0)  # two runs that overflowed are no agreement
    if difference is None:
        print(f"nothing to compare value by value: shapes {list(a.shape)} and {list(b.shape)}")
    else:
        print(f"{difference}" + (f"; dtypes {a.dtype} and {b.dtype}" if a.dtype != b.dtype else ""))
    causes = compare.explain(a, b, seeds=seeds or (93, 0, 42))
    for cause in causes:
        print(f"- {cause}")
    if any(cause.kind == "unknown" for cause in causes):
        named = not all(cause.kind in compare.UNEXPLAINED for cause in causes)
        print(f"- {'not all is explained' if named else 'cause unknown'}: give the seed that was used, --seed N")
    return 1


def _print_comparison(difference: compare.Difference | None, causes: Sequence[compare.Cause], equal: bool) -> int:
    from parity.commands.records_of_streams import Compared

    held = equal and difference is not None and not difference.undefined
    documents.write(Compared(held, difference, tuple(causes)))
    return int(not held)


def _operand(name: str, arguments: argparse.Namespace) -> np.ndarray:
    if name not in streams.names():
        return files.load(name)
    if arguments.shape is None or not arguments.seed:
        raise UsageError(f"--compare {name}: a stream needs --seed and --shape")
    stream = streams.open(name, arguments.seed[0], **_options(arguments, name))
    return stream.normal(arguments.shape, dtype=arguments.dtype, mean=arguments.mean, std=arguments.std)


def _options(arguments: argparse.Namespace, name: str) -> dict[str, Any]:
    given = {
        **{"kernel": arguments.kernel, "torch_version": arguments.torch_version, "fused": arguments.fused},
        **{"split": arguments.split, "partitionable": arguments.partitionable},
        **{"device": arguments.gpu, "multiprocessors": arguments.multiprocessors, "threads": arguments.threads},
    }
    known = catalogue.options(name)
    options = {option: value for option, value in given.items() if value is not None}
    if not arguments.compare:
        for option in options:
            if option not in known:
                raise UsageError(f"{name} has no option {option!r}; it has {', '.join(known) or 'none'}")
    return {option: value for option, value in options.items() if option in known}


def _detect(*, as_json: bool) -> int:
    from parity.streams.detect import torch_cpu

    found = torch_cpu()
    if as_json:
        from parity.commands.records_of_streams import Detected

        documents.write(Detected(found.version, found.kernel or "", found.half_rule or ""))
        return 0
    print(f"torch {found.version}")
    print(f"float32 kernel: {found.kernel or 'none of those known (another C library or compiler)'}")
    print(f"half types: {f'rules of torch {found.half_rule}' if found.half_rule else 'no known rule'}")
    if found.kernel:
        words = " ".join(f"{key}={value!r}" for key, value in found.options().items())
        print(f'to draw its stream: streams.open("torch-cpu", seed, {words.replace(" ", ", ")})')
    return 0


def _integer(text: str) -> int:
    try:
        return int(text, 0)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r}: expected an integer such as 93 or 0x5d") from None


def _shape(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(size) for size in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r}: expected sizes such as 1,4,64,64") from None
