"""A process of a site in which many threads need the access token of one account at once.

``python -m tests.support.asking PK THREADS``: says "ready", reads from stdin the monotonic
instant at which to ask, and prints what each thread got and after how many seconds, as JSON.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from typing import Any

import django


def main() -> None:
    django.setup()
    from django.db import connections

    from django_tiktok_business import services
    from django_tiktok_business.exceptions import TikTokBusinessError
    from django_tiktok_business.models import BusinessAccount

    def ask(account: BusinessAccount) -> None:
        try:
            time.sleep(max(begins_at - time.monotonic(), 0))
            try:
                outcome = services.get_access_token(account)
            except TikTokBusinessError as error:
                outcome = type(error).__name__
            results.append([outcome, time.monotonic() - begins_at])
        finally:
            connections.close_all()

    pk, count = int(sys.argv[1]), int(sys.argv[2])
    accounts = [BusinessAccount.objects.get(pk=pk) for _ in range(count)]
    # A process that has been running has loaded what the first call needs.
    __import__("requests")
    accounts[0].is_decryptable()
    results: list[Any] = []
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    begins_at = float(sys.stdin.readline())
    threads = [threading.Thread(target=ask, args=[account]) for account in accounts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    json.dump(results, sys.stdout)


main()
