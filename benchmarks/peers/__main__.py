"""Command line of the suite: measures peers, or prints the table of results.

python -m benchmarks.peers                              # pubsubflow and all peers, for hours
python -m benchmarks.peers --counts brief               # the same with few rounds, in 25 minutes
python -m benchmarks.peers pubsubflow dbos --counts quick
python -m benchmarks.peers airflow --workload hop kill --settings tuned
python -m benchmarks.peers --table                      # what is in the results folder
python -m benchmarks.peers --table --publish            # the same, into the pages
"""

import argparse
import signal
import sys
from pathlib import Path

from benchmarks.peers.adapters import PEERS
from benchmarks.peers.counts import COUNTS, FULL
from benchmarks.peers.environment import cache_folder
from benchmarks.peers.pages import in_order, publish, whole
from benchmarks.peers.results import read
from benchmarks.peers.suite import measure
from benchmarks.peers.workloads import WORKLOADS
from benchmarks.report import RESULTS


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("peers", nargs="*", metavar="NAME", help=", ".join(PEERS))
    parser.add_argument(
        "--workload",
        nargs="+",
        choices=WORKLOADS,
        default=list(WORKLOADS),
        metavar="NAME",
        help=f"{', '.join(WORKLOADS)}; by default all",
    )
    parser.add_argument(
        "--settings", nargs="+", metavar="NAME", help="default, tuned; by default what a peer has"
    )
    parser.add_argument(
        "--counts", choices=COUNTS, default=FULL.name, help="how much is measured (default: full)"
    )
    parser.add_argument("--cache", type=Path, default=cache_folder(), help="of environments")
    parser.add_argument("--results", type=Path, default=RESULTS / "peers", help="folder of results")
    parser.add_argument("--table", action="store_true", help="measure nothing, print the table")
    parser.add_argument(
        "--publish",
        action="store_true",
        help="keep the results in benchmarks/peers/measured, and write their tables into the pages",
    )
    options = parser.parse_args()
    unknown = set(options.peers) - set(PEERS)
    if unknown:
        parser.error(f"unknown peers {', '.join(sorted(unknown))}: use {', '.join(PEERS)}")
    return options


def _measure(options: argparse.Namespace) -> bool:
    succeeded = True
    for name in options.peers or PEERS:
        kind = PEERS[name]
        for settings in options.settings or kind.settings:
            if settings in kind.settings:
                result = measure(
                    kind,
                    settings,
                    options.workload,
                    COUNTS[options.counts],
                    cache=options.cache,
                    results=options.results,
                )
                succeeded &= not result.failed
    return succeeded


def _show(options: argparse.Namespace) -> None:
    results = in_order(read(path) for path in sorted(options.results.glob("*.json")))
    if options.publish:
        publish(results)
    chosen = [
        each
        for each in results
        if each.peer in (options.peers or PEERS)
        and (not options.settings or each.settings in options.settings)
    ]
    print(whole(chosen))


def main() -> int:
    """Measure and print the table; return the exit code, 1 if a workload failed."""
    options = _parse()
    # As Ctrl-C does, so that no peer is left running.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    succeeded = options.table or _measure(options)
    _show(options)
    return 0 if succeeded else 1


if __name__ == "__main__":
    sys.exit(main())
