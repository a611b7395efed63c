"""A Dask scheduler with one worker in a process of its own: `python dask_cluster.py PORT`."""

import sys
from contextlib import suppress

from distributed import LocalCluster


def main():
    with LocalCluster(
        n_workers=1,
        threads_per_worker=2,
        processes=False,
        host="127.0.0.1",
        protocol="tcp://",
        scheduler_port=int(sys.argv[1]),
        dashboard_address=None,
        silence_logs=50,
    ) as cluster:
        sys.stdout.write(f"{cluster.scheduler_address}\n")
        sys.stdout.flush()
        with suppress(KeyboardInterrupt):
            sys.stdin.read()


if __name__ == "__main__":
    main()
