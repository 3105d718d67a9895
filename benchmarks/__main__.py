"""``python -m benchmarks [NAME …]``: run all benchmarks, or those named, and print ratios.

Each runs in a process of its own, so that none inherits another's memory: Linux counts a parent's peak as its child's.
"""

from __future__ import annotations

import argparse
import importlib
import pkgutil
import subprocess
import sys

import benchmarks

_HELPERS = {"__main__", "bounds", "drift", "judgement_table", "timing"}
_NAMES = sorted(m.name for m in pkgutil.iter_modules(benchmarks.__path__) if m.name not in _HELPERS)


def main() -> int:
    """Run the named benchmarks; 1 if one of them stopped with an error."""
    parser = argparse.ArgumentParser(prog="benchmarks", description=benchmarks.__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"any of {', '.join(_NAMES)}; default all")
    chosen = parser.parse_args().names or _NAMES
    for name in chosen:
        if name not in _NAMES:
            parser.error(f"no benchmark {name!r}; there are {', '.join(_NAMES)}")
    if len(chosen) > 1:
        return max(subprocess.run([sys.executable, "-m", "benchmarks", name]).returncode for name in chosen)
    print(f"\n{chosen[0]}", flush=True)
    importlib.import_module(f"benchmarks.{chosen[0]}").run(lambda line: print(f"  {line}", flush=True))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
