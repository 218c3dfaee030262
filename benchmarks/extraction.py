"""What extraction costs: against the machine's own limit, the textbook loop, other packages, and featx's promises.

    python benchmarks/extraction.py [--only speed together start small large] [--rounds 5] [--scale 1]
        [--peers-python PYTHON] [--json FILE] [--out docs/performance.md]

featx runs as a user types it. Whole processes are timed from outside, each in turn within a round; the cost of an
image is the difference of two sizes, so that the start cancels out. Figures are medians of the rounds' ratios. Photos
and weights are those of FEATX_ASSETS, or of ../shared/assets; a section that lacks them is left out, and that is said.
Other packages are measured where a Python is named that has them: after `pip install '.[bench]'` it may be the same.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from page import PAGE, write_section
from pictures import ASSETS, MANY, link_photos, write_photos
from processes import CORES, HERE, Bench, LeftOut, difference_of, extract, lines, median, ran
from promises import large, small, start

from featx.engine.hardware import choose_precision

MOBILENET = f"mobilenet_v2:weights={ASSETS / 'weights' / 'mobilenet_v2.pth'}"
SQUEEZENET = f"squeezenet1_1:weights={ASSETS / 'weights' / 'squeezenet1_1.pth'}"
PEERS = {"timm": "timm", "embetter": "embetter.vision", "img2vec": "img2vec_pytorch"}
SLOW = {"embetter": 4}  # goes over so many times fewer images


@dataclass(frozen=True)
class Model:
    """A backbone, its bars, and numbers of images: of featx's smaller set and by how many the larger one is larger."""

    title: str
    name: str
    extractor: str
    first: int
    more: int
    forwarded: int
    looped: tuple[int, int]
    share: float | None
    ratio: dict[str, float]
    peers: tuple[str, ...] = ()


FLOAT32_AND_BFLOAT16 = {"float32": 2.0, "bfloat16": 8.0}
MODELS = (
    Model(
        "ResNet-50",
        "resnet50",
        "resnet50:weights=none",
        first=32,
        more=224,
        forwarded=128,
        looped=(32, 64),
        share=0.90,
        ratio=FLOAT32_AND_BFLOAT16,
        peers=tuple(PEERS),
    ),
    Model(
        "MobileNetV2",
        "mobilenet_v2",
        MOBILENET,
        first=64,
        more=1024,
        forwarded=512,
        looped=(32, 96),
        share=0.85,
        ratio=FLOAT32_AND_BFLOAT16,
    ),
    Model(
        "ViT-B/16",
        "vit_b_16",
        "vit_b_16:weights=none",
        first=32,
        more=32,
        forwarded=0,
        looped=(32, 32),
        share=None,
        ratio={"bfloat16": 4.0},
    ),
)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=list(SECTIONS))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--scale", type=float, default=1.0, help="of the numbers of images; below 1 for a try"
    )
    parser.add_argument("--peers-python", help="a Python that has the other packages, to be measured too")
    parser.add_argument("--json", type=Path, help="write all figures, those of each round too")
    parser.add_argument("--out", type=Path, default=PAGE)
    options = parser.parse_args()
    figures = {"date": time.strftime("%Y-%m-%d"), "cores": CORES, "rounds": options.rounds}
    with tempfile.TemporaryDirectory(prefix="featx-benchmark-") as folder:
        for name in options.only:
            print(f"{name} ...", flush=True)
            began = time.perf_counter()
            bench = Bench(Path(folder) / name, options.rounds, options.scale, options.peers_python)
            bench.folder.mkdir()
            try:
                title, text, figures[name] = SECTIONS[name](bench)
            except LeftOut as reason:
                print(f"{name}: left out, {reason}")
                continue
            print(f"{text}\n{name}: {time.perf_counter() - began:.0f} s", flush=True)
            write_section(options.out, title, text)
            if options.json is not None:
                options.json.write_text(json.dumps(figures, indent=1), encoding="utf-8")


def speed(bench: Bench) -> tuple[str, str, Any]:
    """Measure each backbone against the machine's limit, the textbook loop and other packages."""
    need_assets()
    peers = {name: installed(bench.peers_python, module) for name, module in PEERS.items()}
    limits, ratios, figures = [], [], {}
    for model in MODELS:
        print(f"  {model.title}", flush=True)
        found = figures[model.name] = measured_speed(
            model, bench, [name for name in model.peers if peers[name]]
        )
        ours, precision = found["featx"], found["precision"]
        if model.share is not None:
            limit = [
                (decode + forward) / CORES
                for decode, forward in zip(found["decode"], found["forward"], strict=True)
            ]
            share = median(best / one for best, one in zip(limit, ours, strict=True))
            limits.append(
                f"| {model.title} | {precision} | {found['runtime']} | {1000 * median(found['decode']):.1f} "
                f"| {1000 * median(found['forward']):.1f} | {rate(limit)} | {rate(ours)} "
                f"| **{share:.2f}** (at least {model.share:.2f}) |"
            )
        cells = []
        for way in ("textbook", *PEERS):
            if way in found:
                times = median(other / one for other, one in zip(found[way], ours, strict=False))
                bound = model.ratio.get(precision) if way == "textbook" else None
                told = f" (at least {bound:g})" if bound is not None else ""
                cells.append(f"{rate(found[way])}, **{times:.1f}** times{told}")
            else:
                cells.append("not measured" if way in model.peers else "")
        ratios.append(f"| {model.title} | {precision} | {rate(ours)} | {' | '.join(cells)} |")
    text = f"""
Photos of some 75 KB on {CORES} cores, none of them in the cache; medians of {bench.rounds} interleaved rounds, of
one for what has no bar in this precision. featx is `featx extract` with nothing but data, extractor and
cache, by the difference of two data sets, which start-up is no part of. The limit is what the cores could do if
featx's own decoding (reading, digesting, decoding and resizing) and the faster of its runtimes, each alone and in
core-milliseconds an image, were all their work.

| backbone | precision | runtime | decode, ms | forward, ms | limit, images/s | featx, images/s | share of the limit |
|---|---|---|---|---|---|---|---|
{lines(limits)}

The textbook loop is an `ImageFolder`, torchvision's transforms, a `DataLoader` (batches of 32, two workers) and the
network in eager float32. timm is the same of timm's own, embetter is `ImageLoader` and `TimmEncoder`, img2vec is
`Img2Vec.get_vec` on lists of 32 pictures. All networks but featx's MobileNetV2 have random weights, which speed does
not depend on. Images a second, and how many times as many featx does:

| backbone | precision | featx | textbook | timm | embetter | img2vec |
|---|---|---|---|---|---|---|
{lines(ratios)}
"""
    return "Extraction against the machine's limit and other ways", text, figures


def measured_speed(model: Model, bench: Bench, peers: Sequence[str]) -> dict[str, Any]:
    """Return seconds an image by contender, and core-seconds for `decode` and `forward`, of every round."""
    first, more = bench.sized(model.first, least=32), bench.sized(model.more, least=32)
    folder = bench.folder / model.name
    photos = write_photos(folder / "pool", first + more)
    small, large = photo_sets(folder, photos, first)
    difference = link_photos(photos[first:], folder / "difference")

    def loop(way: str) -> Callable[[], float]:
        command = (bench.peers_python if way in PEERS else sys.executable, HERE / "peers.py", way, model.name)
        smaller, by = (bench.sized(number, least=32) // SLOW.get(way, 1) for number in model.looped)
        data = [
            link_photos(photos[:number], folder / f"{way}-{number}") for number in (smaller, smaller + by)
        ]
        return lambda: difference_of(*[ran(*command, images) for images in data]) / by

    forwarded = bench.sized(model.forwarded, least=64)
    best: list[str] = []

    def alone() -> dict[str, Any]:
        said = stages_alone(difference, [model.extractor], forwarded, runtimes=best)
        best[:] = [fastest(said["forward"][model.extractor])]
        return said

    contenders = {"featx": lambda: [extract(data, model.extractor, bench=bench) for data in (small, large)]}
    if model.share is not None:
        contenders["alone"] = alone
    contenders |= {way: loop(way) for way in ("textbook", *peers)}
    has_bar = model.share is not None or choose_precision("auto", device="cpu") in model.ratio
    found = bench.in_turn(once=() if has_bar else contenders, **contenders)
    runs, alone_runs = found.pop("featx"), found.pop("alone", [])
    last = runs[-1][-1].said
    return {
        **found,
        "featx": [difference_of(*pair) / more for pair in runs],
        "decode": [one["decode"]["cpu"] for one in alone_runs],
        "forward": [one["forward"][model.extractor][best[0]]["cpu"] for one in alone_runs],
        "precision": last["extractors"][0]["precision"],
        "runtime": "".join(last["runtimes"]),
        "best_runtime": "".join(best),
        "featx_seconds": [[one.seconds for one in pair] for pair in runs],
        "stages": last["stages"],
        "alone": alone_runs,
    }


def together(bench: Bench) -> tuple[str, str, Any]:
    """Measure three extractors in one pass against one decode and the sum of their forward passes."""
    need_assets()
    extractors = [MOBILENET, SQUEEZENET, "resnet18:weights=none"]
    first, more = bench.sized(64, least=32), bench.sized(384, least=32)
    photos = write_photos(bench.folder / "pool", first + more)
    small, large = photo_sets(bench.folder, photos, first)
    difference = link_photos(photos[first:], bench.folder / "difference")
    best: dict[str, str] = {}

    def alone() -> dict[str, Any]:
        said = stages_alone(
            difference, extractors, bench.sized(128, least=64), runtimes=sorted(set(best.values()))
        )
        best.update(best or {name: fastest(costs) for name, costs in said["forward"].items()})
        return said

    found = bench.in_turn(
        featx=lambda: (
            difference_of(*[extract(data, *extractors, bench=bench) for data in (small, large)]) / more
        ),
        alone=alone,
    )
    decode = [one["decode"]["cpu"] for one in found["alone"]]
    forward = [sum(one["forward"][name][best[name]]["cpu"] for name in extractors) for one in found["alone"]]
    ratio = median(
        CORES * ours / (one + sum_) for ours, one, sum_ in zip(found["featx"], decode, forward, strict=True)
    )
    text = f"""
MobileNetV2, SqueezeNet and ResNet-18, which share one resizing, in one `featx extract` over the photos of the section
above; core-milliseconds an image, medians of {bench.rounds} interleaved rounds. A network of another geometry costs its
own resizing as well.

| work | ms |
|---|---|
| one decode and resizing | {1000 * median(decode):.1f} |
| their forward passes, each alone | {1000 * median(forward):.1f} |
| featx | {1000 * CORES * median(found["featx"]):.1f} |
| featx / (one decode and resizing, and the forward passes) (at most 1.10) | **{ratio:.2f}** |
"""
    return "Three extractors in one pass", text, {**found, "best": best, "ratio": ratio}


SECTIONS = {section.__name__: section for section in (speed, together, start, small, large)}


def photo_sets(folder: Path, photos: Sequence[Path], first: int) -> list[Path]:
    """Return two folders, with the first photos and with all; so many more names that both count as many images."""
    return [
        link_photos(part, folder / name, n_same=MANY)
        for name, part in (("first", photos[:first]), ("all", photos))
    ]


def stages_alone(folder: Path, extractors: Sequence[str], forwarded: int, *, runtimes: Sequence[str]) -> Any:
    named = [word for text in extractors for word in ("-x", text)]
    chosen = ["--runtimes", *runtimes] if runtimes else []
    return ran(
        sys.executable, HERE / "alone.py", folder, *named, "--cores", CORES, "--forwarded", forwarded, *chosen
    ).said


def fastest(costs: dict[str, dict[str, float]]) -> str:
    return min(costs, key=lambda runtime: costs[runtime]["cpu"])


def installed(python: str | None, module: str) -> bool:
    if python is None:
        return False
    return not subprocess.run([python, "-c", f"import {module}"], capture_output=True, check=False).returncode


def need_assets() -> None:
    if not (ASSETS / "datasets").is_dir():
        raise LeftOut("for want of the photos and weights of FEATX_ASSETS")


def rate(seconds: Sequence[float]) -> str:
    return f"{1 / median(seconds):.1f}"


if __name__ == "__main__":
    main()
