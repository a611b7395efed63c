"""Loop of a client program, copied beside a peer's program: it needs the standard library alone."""

import json
import sys
import threading
import time


def serve(send, post):
    """Carry out orders from stdin until it ends.

    Args:
        send: Called with a workload and keys; returns once these are durable.
        post: Called to send one event that nothing waits for; from several threads.
    """
    for line in sys.stdin:
        order = json.loads(line)
        try:
            if "workload" in order:
                answer = {"ok": send(order["workload"], order["keys"])}
            else:
                answer = {"ok": _rate(post, order["count"], order["clients"])}
        except Exception as error:  # noqa: BLE001 - the suite raises it
            answer = {"error": repr(error)}
        print(json.dumps(answer), flush=True)


def _rate(post, count, clients):
    """Return how many calls a second so many threads make."""
    share = count // clients

    def client():
        for _ in range(share):
            post()

    threads = [threading.Thread(target=client) for _ in range(clients)]
    started = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return share * clients / (time.perf_counter() - started)
