"""The lines of the table: what each runs, how often, and what it reports."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import TYPE_CHECKING, Any

from .report import Line
from .stage import NotHereError, ProbeError, Stage, Tiktok, report_progress

if TYPE_CHECKING:
    import subprocess

__all__ = ["LINES", "Bench", "measure"]

IN_FLIGHT = 32
LIMIT_PER_MINUTE = 600
WINDOW_SECONDS = 60


@dataclass
class Bench:
    """One run of the program: where it happens, how thorough it is, and the results so far."""

    stage: Stage
    is_quick: bool
    runs: int = 5
    lines: list[Line] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    databases: list[str] = field(default_factory=list)

    def number(self, usual: int, quick: int) -> int:
        return quick if self.is_quick else usual

    def aimed(
        self, number: str, what: str, ours: str, against: str, ratio: float, aim: str, limit: float
    ) -> None:
        """Add a line with a ratio whose aim is "at most" or, beginning with ≥, "at least"."""
        is_met = ratio >= limit if aim.startswith("≥") else ratio <= limit
        self.lines.append(Line(number, what, ours, against, f"{ratio:.2f} ×", aim, is_met))

    def in_turns(self, *measurements: Callable[[], float]) -> list[list[float]]:
        """Run each several times, alternating, so that a slow moment affects all of them."""
        rounds = [[measure() for measure in measurements] for _ in range(self.runs)]
        return [list(column) for column in zip(*rounds, strict=True)]


def simulator_alone(bench: Bench) -> None:
    """Note how many calls a second the simulator answers, to show that it is not the limit."""
    seconds = bench.number(3, 1)
    clients = min(4, max(2, os.cpu_count() or 1))
    with bench.stage.tiktok(200) as tiktok:

        def calls_per_second() -> float:
            parts = [
                bench.stage.start(
                    *("-m", "benchmarks.probe", "hammer", str(seconds), tiktok.base_url),
                    *(str(tiktok.grants_path), str(part), str(clients)),
                )
                for part in range(clients)
            ]
            answers = [_answer(process) for process in parts]
            return float(sum(each["calls"] / each["duration_seconds"] for each in answers))

        (rates,) = bench.in_turns(calls_per_second)
    bench.notes.append(
        f"The simulator, in its own process, answers {median(rates):,.0f} refreshes a second to "
        f"{clients} client processes over plain kept-alive sockets, which share the cores with it."
    )


def throughput(bench: Bench) -> None:
    bench.stage.need_postgres()
    plan = (
        # latency in seconds, accounts for the loop, accounts for us, aim
        (0.0, bench.number(1000, 10), bench.number(1500, 40), "≥ 1 ×", 1.0),
        (0.1, 30, 960, "≥ 25 ×", 25.0),
        (0.3, 10, 480, "none", 0.0),
    )
    with bench.stage.tiktok(bench.number(1500, 40)) as tiktok:
        for latency_seconds, for_loop, for_us, aim, limit in plan[: bench.number(3, 1)]:
            report_progress(f"1: latency {latency_seconds * 1000:.0f} ms")
            tiktok.control("settings", latency_seconds=latency_seconds)

            def ours(accounts: int = for_us) -> float:
                bench.stage.measure("reset")
                report = _refresh(bench, tiktok, accounts)
                return float(report["refreshed"] / report["duration_seconds"])

            def plain(accounts: int = for_loop) -> float:
                result = bench.stage.measure("loop", str(accounts), tiktok.base_url, tiktok=tiktok)
                return float(accounts / result["duration_seconds"])

            with_us, with_loop = map(median, bench.in_turns(ours, plain))
            texts = (
                f"accounts a second, {latency_seconds * 1000:.0f} ms latency",
                f"{with_us:,.0f}/s",
                f"{with_loop:,.1f}/s",
            )
            if aim == "none":
                ratio = f"{with_us / with_loop:.2f} ×"
                bench.lines.append(Line("1", *texts, ratio))
            else:
                bench.aimed("1", *texts, with_us / with_loop, aim, limit)
    bench.notes.append(
        f"1: `refresh_tokens --concurrency {IN_FLIGHT}` without a rate limit against python-tiktok "
        "and `Model.save()` with plain text columns, one account after the other, on PostgreSQL. "
        "The simulator rotates both tokens with each refresh."
    )


def politeness(bench: Bench) -> None:
    bench.stage.need_postgres()
    redis, redis_name = bench.stage.redis()
    bench.databases.append(redis_name)
    cache = json.dumps(redis)
    seconds = bench.number(180, 1)
    allowed = LIMIT_PER_MINUTE * seconds // 60
    with bench.stage.tiktok(allowed + bench.number(LIMIT_PER_MINUTE, 60)) as tiktok:
        processes = [
            bench.stage.start(
                *("-m", "benchmarks.probe", "command"),
                tiktok=tiktok,
                BENCH_CACHE=cache,
                BENCH_REQUESTS_PER_MINUTE=str(LIMIT_PER_MINUTE),
            )
            for _ in range(2)
        ]
        _wait_for_calls(tiktok)
        time.sleep(seconds + 1)
        for process in processes:
            process.send_signal(signal.SIGTERM)
        reports = [_answer(process) for process in processes]
        at = sorted(call["at"] for call in tiktok.control("log")["calls"])
    share = sum(moment < at[0] + seconds for moment in at) / allowed
    # The calls that come as the 601st or later within 60 seconds.
    later = zip(at, at[LIMIT_PER_MINUTE:], strict=False)
    over = sum(last - first < WINDOW_SECONDS for first, last in later)
    fullest = max(sum(first <= moment < first + 1 for moment in at) for first in at)
    what = f"{LIMIT_PER_MINUTE} calls a minute, two processes"
    bench.lines += [
        Line(
            "2",
            f"share of the rate limit: {what}",
            f"{share * allowed:,.0f} calls",
            f"{allowed:,} allowed",
            f"{share:.1%}",
            "≥ 97 %",
            share >= 0.97,
        ),
        Line("2", f"calls over it: {what}", f"{over}", "0", f"{over}", "0", over == 0),
    ]
    by_each = " and ".join(str(report["refreshed"]) for report in reports)
    bench.notes.append(
        f"2: one run of {seconds} seconds, with Redis as CACHE_ALIAS, by the time stamps of the "
        f"simulator's log, in any {WINDOW_SECONDS} seconds. The processes refreshed {by_each}; the "
        f"fullest second had {fullest} calls."
    )


def cpu(bench: Bench) -> None:
    bench.stage.need_postgres()
    calls = bench.number(1000, 30)
    with_session: list[float] = []
    with bench.stage.tiktok(calls + 20) as tiktok:

        def ours() -> float:
            bench.stage.measure("reset")
            result = bench.stage.measure("command_cpu", str(calls), tiktok=tiktok)
            return float(result["cpu_seconds"])

        def bare() -> float:
            result = bench.stage.measure(
                "post_cpu", str(calls), tiktok.base_url, str(tiktok.grants_path)
            )
            with_session.append(result["session"])
            return float(result["cpu_seconds"])

        with_us, with_post = map(median, bench.in_turns(ours, bare))
    bench.aimed(
        "3",
        "CPU of a refresh, against the bare `requests.post`",
        f"{with_us * 1000:.2f} ms",
        f"{with_post * 1000:.2f} ms",
        with_us / with_post,
        "≤ 1.5 ×",
        1.5,
    )
    bench.notes.append(
        "3: user and system time of the process, at REFRESH_CONCURRENCY 8 and no latency; finding, "
        "claiming, decrypting, encrypting and saving on PostgreSQL included. With a session that "
        f"keeps its connection the bare call takes {median(with_session) * 1000:.2f} ms."
    )


def memory(bench: Bench) -> None:
    bench.stage.need_postgres()
    few, many = bench.number(1_000, 50), bench.number(100_000, 500)
    with bench.stage.tiktok(few) as tiktok:

        def with_few() -> float:
            bench.stage.measure("reset")
            return _peak_mib(_refresh(bench, tiktok, few))

        (small,) = bench.in_turns(with_few)
    report_progress(f"4: making {many:,} accounts")
    stopped_after = bench.number(15, 1)
    with bench.stage.tiktok(many) as tiktok:
        large = []
        for _ in range(bench.runs - 1):
            process = bench.stage.start(
                *("-m", "benchmarks.probe", "command", "--concurrency", str(IN_FLIGHT)),
                tiktok=tiktok,
            )
            time.sleep(stopped_after)
            process.send_signal(signal.SIGTERM)
            large.append(_peak_mib(_answer(process)))
        bench.stage.measure("reset")
        report_progress(f"4: the whole run over {many:,} accounts")
        whole = _refresh(bench, tiktok, many)
    large.append(_peak_mib(whole))
    bench.aimed(
        "4",
        f"peak memory with {many:,} due accounts, against {few:,}",
        f"{max(large):.1f} MiB",
        f"{median(small):.1f} MiB",
        max(large) / median(small),
        "≤ 1.1 ×",
        1.1,
    )
    bench.notes.append(
        f"4: of a `refresh_tokens` process, against the median of {bench.runs} whole runs. With "
        f"{many:,} due accounts one run went to its end ({whole['refreshed']:,} refreshed in "
        f"{whole['duration_seconds']:,.0f} s, peak {large[-1]:.1f} MiB) and {bench.runs - 1} were "
        f"stopped by SIGTERM after {stopped_after} s (median of all: {median(large):.1f} MiB); the "
        "table has the highest of them."
    )


def claiming(bench: Bench) -> None:
    bench.stage.need_postgres()
    few, many = bench.number(10_000, 2_000), bench.number(1_000_000, 4_000)
    results: dict[int, list[dict[str, float]]] = {}
    for rows in (few, many):
        report_progress(f"5: making {rows:,} rows")
        bench.stage.measure("fill_many", str(rows))
        bench.stage.measure("claims", "2")  # fills the caches, so that no measured run does
        batches = str(bench.number(9, 2))
        results[rows] = [bench.stage.measure("claims", batches) for _ in range(bench.runs)]

    def milliseconds(rows: int, *names: str) -> float:
        return median(sum(run[name] for name in names) for run in results[rows]) * 1000

    with_few, with_many = (milliseconds(rows, "find", "claim") for rows in (few, many))
    bench.aimed(
        "5",
        f"finding and claiming the next batch among {many:,} rows, against {few:,}",
        f"{with_many:.2f} ms",
        f"{with_few:.2f} ms",
        with_many / with_few,
        "≤ 1.5 ×",
        1.5,
    )
    bench.notes.append(
        "5: on PostgreSQL, a quarter of the rows due: the next page of due accounts and the claim "
        f"of {IN_FLIGHT} of them, as the engine does it; finding {milliseconds(many, 'find'):.2f} "
        f"against {milliseconds(few, 'find'):.2f} ms, claiming {milliseconds(many, 'claim'):.2f} "
        f"against {milliseconds(few, 'claim'):.2f} ms, the first batch of a process "
        f"{milliseconds(many, 'first'):.2f} against {milliseconds(few, 'first'):.2f} ms."
    )


def reading(bench: Bench) -> None:
    reads = bench.number(5000, 50)
    results = [bench.stage.measure("access", str(reads)) for _ in range(bench.runs)]
    fernet, ours, first, second = (
        median(result[name] for result in results) for name in ("fernet", "ours", "first", "second")
    )
    bench.aimed(
        "6",
        "`get_access_token` with a good token, against a plain attribute and one Fernet decryption",
        f"{ours:.1f} µs",
        f"{fernet:.1f} µs",
        median(result["ours"] / result["fernet"] for result in results),
        "≤ 1.5 ×",
        1.5,
    )
    bench.lines.append(
        Line(
            "6",
            "first read of an account that is new to the process, against the second",
            f"{first:.1f} µs",
            f"{second:.1f} µs",
            f"{first / second:.2f} ×",
        )
    )


def starting(bench: Bench) -> None:
    bench.runs, usual = bench.number(15, 1), bench.runs
    early: set[str] = set()

    def setup(site: str, apps: str) -> Callable[[], float]:
        def measure() -> float:
            result = bench.stage.measure("setup", site, apps)
            early.update(result["imported_early"] if apps else ())
            return float(result["milliseconds"])

        return measure

    sites = {"bare": "a bare project", "admin": "a project with the admin"}
    for site, name in sites.items():
        measurements = setup(site, "django_tiktok_business"), setup(site, "")
        for measure in measurements:
            measure()  # compiles what has not been compiled
        with_us, without = map(median, bench.in_turns(*measurements))
        bench.lines.append(
            Line(
                "7",
                f"`django.setup()` of {name} with the app, against without",
                f"{with_us:.1f} ms",
                f"{without:.1f} ms",
                f"{with_us - without:+.1f} ms",
                "≤ 15 ms",
                with_us - without <= 15,
            )
        )
    bench.notes.append(
        f"7: CPU time, medians of {bench.runs} processes each, compiled before. Imported by it "
        "although they could wait: "
        f"{', '.join(sorted(early)) or 'neither requests nor cryptography'}."
    )
    bench.runs = usual


OLD_KEY = "benchmarks-only-Wd4Xr9YkTm2VcQs7GjLb6Pn"
NEW_KEY = "benchmarks-only-Hs6Vm1XcJr8TfNb3KqGw5Ze"


def rotating(bench: Bench) -> None:
    bench.stage.need_postgres()
    few, many = bench.number(5_000, 50), bench.number(1_000_000, 500)

    def encrypt_under_old_key() -> None:
        bench.stage.measure("fill_encrypted", str(few), BENCH_KEYS=json.dumps([OLD_KEY]))

    def rotated(probe: str) -> dict[str, Any]:
        keys = json.dumps([NEW_KEY, OLD_KEY])
        result: dict[str, Any] = bench.stage.measure(probe, BENCH_KEYS=keys)
        if result["rotated"] != few:
            raise ProbeError(f"{few} rows should have been rotated: {result}")
        return result

    def rows_per_second(probe: str) -> float:
        encrypt_under_old_key()
        return float(few / rotated(probe)["duration_seconds"])

    bench.stage.measure("fill_many", "0")
    with_us, plain = map(
        median,
        bench.in_turns(lambda: rows_per_second("rotate"), lambda: rows_per_second("rotate_plain")),
    )
    bench.lines.append(
        Line(
            "8",
            "accounts a second that `rotate_encryption_keys` encrypts afresh",
            f"{with_us:,.0f}/s",
            f"{plain:,.0f}/s",
            f"{with_us / plain:.2f} ×",
        )
    )
    encrypt_under_old_key()
    small = _peak_mib(rotated("rotate"))
    report_progress(f"8: making {many:,} rows")
    bench.stage.measure("fill_many", str(many))
    encrypt_under_old_key()
    whole = rotated("rotate")
    if whole["seen"] != many + few:
        raise ProbeError(f"{many + few} rows should have been looked at: {whole}")
    bench.aimed(
        "8",
        f"peak memory of a rotation among {many:,} rows, against {few:,}",
        f"{_peak_mib(whole):.1f} MiB",
        f"{small:.1f} MiB",
        _peak_mib(whole) / small,
        "≤ 1.1 ×",
        1.1,
    )
    bench.notes.append(
        f"8: {few:,} rows under an old key, on PostgreSQL, each a conditional UPDATE of its own, "
        "against MultiFernet.rotate() and Model.save() of a table without conditions. Memory: one "
        f"process each; of the {many:,} rows all were read and tried with both keys, and "
        f"{few:,} could be opened and were written ({whole['duration_seconds']:,.0f} s in all)."
    )


def pages(bench: Bench) -> None:
    bench.stage.need_postgres()
    many, views = bench.number(100_000, 500), str(bench.number(9, 2))
    report_progress(f"9: making {many:,} rows")
    bench.stage.measure("fill_many", str(many))

    def measured() -> dict[str, float]:
        result: dict[str, float] = bench.stage.measure(
            "pages", views, DJANGO_SETTINGS_MODULE="benchmarks.settings_admin"
        )
        return result

    results = [measured() for _ in range(bench.runs)]
    ours, bare, afresh, counting = (
        median(result[name] for result in results)
        for name in ("ours", "bare", "afresh", "counting")
    )
    bench.aimed(
        "9",
        f"the admin's list of {many:,} accounts, against a bare `ModelAdmin` of its columns",
        f"{ours:.0f} ms",
        f"{bare:.0f} ms",
        median(result["ours"] / result["bare"] for result in results),
        "≤ 1.3 ×",
        1.3,
    )
    queries = max(result["queries"] for result in results)
    bench.lines.append(
        Line(
            "9",
            "queries of that page, those for the session and the user included",
            f"{queries:.0f}",
            f"{max(result['bare_queries'] for result in results):.0f}",
            f"{queries:.0f}",
            "≤ 8",
            queries <= 8,
        )
    )
    bench.notes.append(
        f"9: 100 rows a page, by Django's test client, on PostgreSQL; medians of {bench.runs} "
        f"processes, each of which requests the pages alternately, {views} times. The bare "
        "admin counts all rows twice for a page. Ours counts them by health once and keeps that "
        f"for some seconds; a page that has to count takes {afresh:.0f} ms, "
        f"{counting:.0f} ms of them for the query."
    )


LINES: dict[str, Callable[[Bench], None]] = {
    "1": throughput,
    "2": politeness,
    "3": cpu,
    "4": memory,
    "5": claiming,
    "6": reading,
    "7": starting,
    "8": rotating,
    "9": pages,
}
NEED_SIMULATOR = frozenset("1234")


def measure(bench: Bench, numbers: Sequence[str]) -> None:
    """Measure these lines, in the order of the table."""
    if NEED_SIMULATOR & set(numbers):
        report_progress("the simulator alone")
        simulator_alone(bench)
    for number, line in LINES.items():
        if number not in numbers:
            continue
        report_progress(f"line {number}")
        begin = time.monotonic()
        try:
            line(bench)
        except NotHereError as error:
            bench.lines.append(Line(number, "not measured", "", "", str(error)))
        except ProbeError as error:  # the other lines are still useful
            report_progress(f"line {number} failed: {error}")
            bench.lines.append(Line(number, "failed", "", "", str(error), is_met=False))
        report_progress(f"line {number} took {time.monotonic() - begin:.0f} s")


def _refresh(bench: Bench, tiktok: Tiktok, accounts: int) -> dict[str, Any]:
    """Run one ``refresh_tokens`` process that has to refresh this many accounts."""
    report: dict[str, Any] = bench.stage.measure(
        *("command", "--limit", str(accounts), "--concurrency", str(IN_FLIGHT)), tiktok=tiktok
    )
    if report.get("refreshed") != accounts:
        raise ProbeError(f"{accounts} accounts should have been refreshed: {report}")
    return report


def _peak_mib(report: dict[str, Any]) -> float:
    return float(report["peak_kib"]) / 1024


def _answer(process: subprocess.Popen[str]) -> dict[str, Any]:
    """Wait for a probe and return its answer."""
    output, _ = process.communicate()
    if process.returncode != 0:
        raise ProbeError(f"a probe ended with {process.returncode}")
    answer: dict[str, Any] = json.loads(output.splitlines()[-1])
    return answer


def _wait_for_calls(tiktok: Tiktok) -> None:
    deadline = time.monotonic() + 30
    while not tiktok.control("log")["calls"]:
        if time.monotonic() > deadline:
            raise ProbeError("no call has reached the simulator")
        time.sleep(0.1)
