"""The sections of `extraction.py` that need no photos: start-up, very many images, large caches."""

import sys
from dataclasses import asdict
from typing import Any

from pictures import MANY, link_photos, write_small
from processes import FEATX, HERE, Bench, extract, lines, median, ran

__all__ = ["large", "small", "start"]


def start(bench: Bench) -> tuple[str, str, Any]:
    """Measure how long it takes to the first row, and to the help."""
    extractor = "resnet50:weights=none"
    (picture,) = write_small(bench.folder / "small", 1).rglob("*.jpg")
    one = link_photos([picture], bench.folder / "one")
    many = link_photos([picture], bench.folder / "many", n_same=MANY)
    found = bench.in_turn(
        interpreter=lambda: ran(sys.executable, "-c", "pass"),
        help=lambda: ran(FEATX, "--help"),
        one=lambda: extract(one, extractor, bench=bench),
        many=lambda: extract(many, extractor, bench=bench),
    )
    rows = []
    for name, title, bar in (
        ("interpreter", "`python -c pass`", None),
        ("help", "`featx --help`", 0.5),
        ("one", "one picture", 8),
        ("many", f"{MANY + 1} names of two pictures", 8),
    ):
        runs = found[name]
        told = "" if bar is None else f" (at most {bar:g})"
        cells = [f"**{median(run.seconds for run in runs):.2f}**{told}", "", "", ""]
        if name in ("one", "many"):
            cells[1] = f"{median(run.said['seconds'] for run in runs):.2f}"
            cells[2] = f"{median(run.said['starting_seconds'] for run in runs):.2f}"
            cells[3] = "".join(runs[-1].said["runtimes"])
        rows.append(f"| {title} | {' | '.join(cells)} |")
    text = f"""
`featx extract -x {extractor}` with nothing in the cache, from the command to its end, where the first row is
published: of one picture, and of so many names that `--runtime auto` takes what it takes for many images. Seconds,
medians of {bench.rounds} interleaved rounds. Beside it what featx's own `--json` tells: of the whole run, and up to
the first row kept.

| command | seconds | `seconds` | `starting_seconds` | runtime |
|---|---|---|---|---|
{lines(rows)}
"""
    return "Start-up", text, {name: [asdict(run) for run in runs] for name, runs in found.items()}


def small(bench: Bench) -> tuple[str, str, Any]:
    """Measure a warm run, and peak memory, over very many small images."""
    sizes = [bench.sized(number, least=200) for number in (5_000, 20_000, 25_000, 100_000)]
    folders = [write_small(bench.folder / f"{size}", size) for size in sizes]
    rows, figures = [], {}
    for extractor, fewer, more in (("pixels:size=4", 1, 3), ("nano:size=32", 0, 2)):
        runs = figures[extractor] = [
            extract(data, extractor, bench=bench, cache=bench.folder / f"{data.name}-{extractor}")
            for data in (folders[fewer], folders[more])
        ]
        ratio = runs[1].peak_mib / runs[0].peak_mib
        rows.append(
            f"| `{extractor}` | {sizes[fewer]:,} | {runs[0].peak_mib:.0f} | {sizes[more]:,} | {runs[1].peak_mib:.0f} "
            f"| **{ratio:.2f}** (at most 1.10) |"
        )
    warm_cache = bench.folder / f"{folders[3].name}-pixels:size=4"
    found = bench.in_turn(
        interpreter=lambda: ran(sys.executable, "-c", "pass"),
        warm=lambda: extract(folders[3], "pixels:size=4", bench=bench, cache=warm_cache),
    )
    if any(run.said["cached"] != sizes[3] for run in found["warm"]):
        raise SystemExit("the warm run was not warm")
    beyond = [
        ours.seconds - bare.seconds for ours, bare in zip(found["warm"], found["interpreter"], strict=True)
    ]
    watched = ran(
        sys.executable, "-c", WATCHED, folders[3], "-x", "pixels:size=4", "--cache", warm_cache, "--quiet"
    ).said
    text = f"""
JPEGs of 16 by 16 pixels, each with a digest of its own. A warm `featx extract -x pixels:size=4` over {sizes[3]:,} of
them takes **{median(beyond):.1f}** s more than `python -c pass` (at most 3; median of {bench.rounds} rounds).
It imports {watched["imported"]} of torch, and opens {watched["opened"]} of the images.

The peak of memory of a cold run, in MiB, must not grow with the data set:

| extractor | images | peak | images | peak | ratio |
|---|---|---|---|---|---|
{lines(rows)}
"""
    figures = {name: [asdict(run) for run in runs] for name, runs in (figures | found).items()}
    return "A hundred thousand small images", text, {**figures, "beyond": beyond, "watched": watched}


WATCHED = """
import json, os, sys
folder, opened = sys.argv[1], []
def watch(event, values):
    if event == "open" and isinstance(values[0], (str, bytes)) and os.fsdecode(values[0]).startswith(folder):
        opened.append(values[0])
sys.addaudithook(watch)
from featx.cli.main import main
sys.argv[1:1] = ["extract"]
try:
    main()
finally:
    images = [name for name in opened if os.fsdecode(name).endswith(".jpg")]
    print(json.dumps({"imported": "something" if "torch" in sys.modules else "nothing", "opened": len(images)}))
"""


def large(bench: Bench) -> tuple[str, str, Any]:
    """Measure opening a cache of very many rows, and loading one of long vectors."""

    def step(name: str, rows: int, features: int) -> Any:
        folder = bench.folder / f"{rows}x{features}"
        command = (sys.executable, HERE / "large_cache.py", name, folder)
        return ran(*command, "--rows", rows, "--features", features).said

    many = (bench.sized(1_000_000, least=10_000), 16)
    long = (bench.sized(50_000, least=5000), 2048)
    built = [step("build", *many), step("build", *long)]
    found = bench.in_turn(
        open=lambda: step("open", *many), load=lambda: step("load", *long), plain=lambda: step("plain", *long)
    )
    ratio = median(
        ours["seconds"] / plain["seconds"] for ours, plain in zip(found["load"], found["plain"], strict=True)
    )
    opened, loaded, plain = (found[name] for name in ("open", "load", "plain"))
    rows = [
        f"| {many[0]:,} rows of {many[1]} features in {built[0]['shards']} shards: digests checked "
        f"| {median(one['digests'] for one in opened):.2f} |",
        f"| ... then opened | **{median(one['open'] for one in opened):.2f}** (at most 1) |",
        f"| {long[0]:,} x {long[1]} loaded in the order of a data set, digests checked "
        f"| {median(one['seconds'] for one in loaded):.2f} |",
        "| ... `numpy.fromfile` of the same bytes, and one thread's SHA-256 of them "
        f"| {median(one['seconds'] for one in plain):.2f} |",
        f"| ratio | **{ratio:.2f}** (at most 2) |",
    ]
    text = f"""
Caches of random float16 vectors, written through featx's own writer and still in the memory of the file system;
medians of {bench.rounds} interleaved rounds, every step in a process of its own, which has used
as much memory before the clock starts.

| step | seconds |
|---|---|
{lines(rows)}
"""
    return "Large caches", text, {"built": built, **found, "ratio": ratio}
