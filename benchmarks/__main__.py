"""``python -m benchmarks [NAME …]``: run all benchmarks, or those named, and print ratios."""

from __future__ import annotations

import argparse
import importlib
import pkgutil

import benchmarks

_NAMES = sorted(m.name for m in pkgutil.iter_modules(benchmarks.__path__) if m.name not in {"__main__", "timing"})


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks", description=benchmarks.__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"any of {', '.join(_NAMES)}; default all")
    chosen = parser.parse_args().names or _NAMES
    for name in chosen:
        if name not in _NAMES:
            parser.error(f"no benchmark {name!r}; there are {', '.join(_NAMES)}")
        print(f"\n{name}", flush=True)
        importlib.import_module(f"benchmarks.{name}").run(lambda line: print(f"  {line}", flush=True))


if __name__ == "__main__":
    main()
