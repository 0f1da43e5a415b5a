"""Makes a log of operations that ends in a difference short: first the shortest tail that shows any
difference on fresh servers, then, while time is left, parts of it are left out."""
import time

from cluster import Failure
from etcd_servers import KINDS, EtcdServers
from judge import Difference
from pair import Pair

TAILS = (20, 100, 500, 2000, 10000, 50000)
SHRINK_S = 300


def fails(test, options, log):
    """What differs when this log runs on new servers, or an empty text."""
    left, right = EtcdServers(test), KINDS[options.against](test)
    pair = Pair(left.pb, [left.rpc(), right.rpc()])
    try:
        for batch in log:
            pair.run(batch)
        pair.settle()
        return pair.together()
    except (Difference, Failure, OSError) as difference:
        return str(difference)
    finally:
        pair.close()
        left.close()
        right.close()


def shrink(test, options, log):
    deadline = time.monotonic() + SHRINK_S
    found = ""
    for size in TAILS:
        found = fails(test, options, log[-size:])
        if found or size >= len(log):
            log = log[-size:]
            break
    if not found:
        print("the difference does not come back on new servers")
        return
    chunk = len(log) // 2
    while chunk and time.monotonic() < deadline:
        start = 0
        while start < len(log) and time.monotonic() < deadline:
            shorter = log[:start] + log[start + chunk:]
            again = fails(test, options, shorter)
            if again:
                log, found = shorter, again
            else:
                start += chunk
        chunk //= 2
    print(f"{len(log)} batches show it: {found}")
    for batch in log:
        print("    " + "; ".join(str(op) for op in batch))
