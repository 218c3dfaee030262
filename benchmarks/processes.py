"""Processes timed from outside, and contenders in turn; what they run is not its matter."""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = [
    "CORES",
    "FEATX",
    "HERE",
    "Bench",
    "LeftOut",
    "Ran",
    "difference_of",
    "extract",
    "lines",
    "median",
    "ran",
]

HERE = Path(__file__).parent
CORES = len(os.sched_getaffinity(0))
FEATX = str(Path(sys.executable).with_name("featx"))
PATIENCE_SECONDS = 300
# Nothing is asked of a GPU: the limits are those of the cores.
_ENVIRONMENT = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "PYTHONWARNINGS": "ignore"}


class LeftOut(Exception):
    """A section cannot be measured here; says why."""


@dataclass(frozen=True)
class Ran:
    """A process that has ended well: seconds from outside, its peak of memory, what it printed last as JSON."""

    seconds: float
    peak_mib: float
    said: Any


@dataclass(frozen=True)
class Bench:
    """Where a section may write, and how it is measured."""

    folder: Path
    rounds: int
    scale: float
    peers_python: str | None

    def sized(self, number: int, *, least: int) -> int:
        return max(least, round(number * self.scale))

    def in_turn(self, *, once: Iterable[str] = (), **contenders: Callable[[], Any]) -> dict[str, list[Any]]:
        """Run every contender once a round, some in the first round only."""
        found = defaultdict(list)
        for number in range(self.rounds):
            told = []
            for name, contender in contenders.items():
                if name in once and number:
                    continue
                began = time.perf_counter()
                found[name].append(contender())
                told.append(f"{name} {time.perf_counter() - began:.0f} s")
            if not told:
                break
            print(f"  round {number + 1} of {self.rounds}: {', '.join(told)}", flush=True)
        return found


def extract(data: Path, *extractors: str, bench: Bench, cache: Path | None = None) -> Ran:
    """Run ``featx extract`` into a cache, or into one that is made for it and thrown away."""
    named = [word for text in extractors for word in ("-x", text)]
    with tempfile.TemporaryDirectory(dir=bench.folder) as fresh:
        return ran(FEATX, "extract", data, *named, "--json", "--cache", cache or fresh)


def ran(*command: Any) -> Ran:
    """Run a process to its end; one that fails, or seems never to end, ends everything."""
    words = [str(word) for word in command]
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as errors:
        began = time.perf_counter()
        process = subprocess.Popen(words, stdout=out, stderr=errors, env=_ENVIRONMENT)
        hung = threading.Timer(PATIENCE_SECONDS, process.kill)
        hung.start()
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - began
        hung.cancel()
        process.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        errors.seek(0)
        if process.returncode:
            raise SystemExit(
                f"{' '.join(words)}\nended with {process.returncode} after {seconds:.0f} s:\n{errors.read()[-2000:]}"
            )
        printed = out.read().strip().splitlines()
    said = json.loads(printed[-1]) if printed and printed[-1].startswith("{") else None
    return Ran(seconds, usage.ru_maxrss / 1024, said)


def difference_of(small: Ran, large: Ran) -> float:
    return large.seconds - small.seconds


def median(values: Iterable[float]) -> float:
    return statistics.median(list(values))


def lines(rows: Sequence[str]) -> str:
    return "\n".join(rows)
