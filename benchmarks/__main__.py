"""``python -m benchmarks``: measure, print the table, and write it to a file.

    python -m benchmarks [--only 3,6] [--quick] [--output FILE]

DATABASE_URL names a PostgreSQL server (a database of its own is made there), CACHE_URL a Redis.
"""

from __future__ import annotations

import argparse
import signal
import sys
from pathlib import Path

from .lines import LINES, Bench, measure
from .report import document
from .stage import Stage

RESULTS = Path(__file__).parent / "RESULTS.md"


def _numbers(text: str) -> list[str]:
    numbers = text.split(",")
    if not set(numbers) <= set(LINES):
        raise argparse.ArgumentTypeError(f"give some of {','.join(LINES)}")
    return numbers


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description="Measure what the package costs."
    )
    parser.add_argument(
        "--only", type=_numbers, metavar="N,N", help="these lines of the table (all of them)"
    )
    parser.add_argument(
        "--quick", action="store_true", help="see in seconds that it runs; the numbers mean nothing"
    )
    parser.add_argument(
        "--output",
        type=Path,
        metavar="FILE",
        help="where to write the table (benchmarks/RESULTS.md, of a whole run only)",
    )
    options = parser.parse_args()
    # As Ctrl-C does: the database and the simulator that were made are removed.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    is_whole = options.only is None and not options.quick
    with Stage.opened() as stage:
        bench = Bench(stage, options.quick, runs=1 if options.quick else 5)
        if stage.database_name:
            bench.databases.append(stage.database_name)
        measure(bench, options.only or list(LINES))
    text = document(bench.lines, bench.notes, databases=bench.databases, is_quick=options.quick)
    sys.stdout.write(text)
    output = options.output or (RESULTS if is_whole else None)
    if output is not None:
        output.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
