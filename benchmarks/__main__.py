"""`python -m benchmarks NAME [--json] [...]`: run one benchmark of this folder, or list them."""

from __future__ import annotations

import importlib
import pkgutil
import sys

import benchmarks


def names() -> list[str]:
    """Benchmarks: the modules of this folder."""
    return sorted(module.name for module in pkgutil.iter_modules(benchmarks.__path__) if module.name != "__main__")


def main(argv: list[str]) -> int:
    """Hand the arguments to the benchmark: 0 when it ran, 2 for an unknown name, else what it returns."""
    name = argv[0].replace("-", "_") if argv else ""
    if name not in names():
        known = ", ".join(names())
        print(f"usage: python -m benchmarks NAME [--json]; benchmarks: {known}", file=sys.stderr)
        return 2
    module = importlib.import_module(f"benchmarks.{name}")
    code = module.main("--json" in argv[1:], [argument for argument in argv[1:] if argument != "--json"])
    return int(code or 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
