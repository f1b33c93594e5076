"""How long an answer of TikTok is in memory only: ``python -m benchmarks.commit_window``.

From the moment at which the answer has arrived in our process until the new pair is committed. A
process that dies in between takes the pair with it; no order of steps can close this window.
Prints the median, the 99th percentile and the longest of 2,000 refreshes on PostgreSQL
(DATABASE_URL as for ``make bench``), one at a time and 32 at once.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from typing import TYPE_CHECKING, Any

from .stage import NotHereError, Stage

if TYPE_CHECKING:
    import requests

__all__ = ["main", "measure", "session"]

REFRESHES = 2_000
MODULE = "benchmarks.commit_window"

_arrived_at: dict[str, float] = {}  # by open id


def session() -> requests.Session:
    """A session that notes when an answer has arrived completely."""
    import requests

    def note(response: requests.Response, **_: Any) -> None:
        content = response.content
        now = time.perf_counter()
        _arrived_at[json.loads(content)["data"]["open_id"]] = now

    session = requests.Session()
    session.hooks["response"].append(note)
    return session


def measure(concurrency: int) -> None:
    """Print the seconds from arrival to commit for each due account, as JSON."""
    import django

    django.setup()
    from django.conf import settings

    from django_tiktok_business import services, signals

    settings.TIKTOK_BUSINESS["SESSION_FACTORY_PATH"] = f"{MODULE}.session"
    seconds: list[float] = []

    def note(account: Any, **_: Any) -> None:  # sent when the pair is committed
        seconds.append(time.perf_counter() - _arrived_at[account.open_id])

    signals.tokens_refreshed.connect(note)
    services.refresh_due_accounts(concurrency=concurrency)
    json.dump(seconds, sys.stdout)


def main() -> int:
    """Measure and print; return the exit status."""
    with Stage.opened() as stage:
        try:
            stage.need_postgres()
        except NotHereError as error:
            sys.stderr.write(f"{error}\n")
            return 2
        for concurrency in (1, 32):
            with stage.tiktok(REFRESHES, latency_seconds=0.1 if concurrency > 1 else 0) as tiktok:
                program = f"from {MODULE} import measure; measure({concurrency})"
                output = stage.run("-c", program, tiktok=tiktok)
            seconds = sorted(json.loads(output))
            percentiles = statistics.quantiles(seconds, n=100)
            sys.stdout.write(
                f"{len(seconds)} refreshes, {concurrency} at once: "
                f"median {1000 * percentiles[49]:.1f} ms, p99 {1000 * percentiles[98]:.1f} ms, "
                f"longest {1000 * seconds[-1]:.1f} ms\n"
            )
    return 0


if __name__ == "__main__":
    sys.exit(main())
