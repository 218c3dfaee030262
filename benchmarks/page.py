"""Writing one benchmark's section into the page that all of them share; it measures nothing."""

import os
import platform
import time
from pathlib import Path

__all__ = ["PAGE", "write_section"]

PAGE = Path(__file__).parent.parent / "docs" / "performance.md"

_TOP = """# Performance

Ratios within one run of `make bench`, or of `make bench PEERS=python` where that Python has the packages of
`pip install '.[bench]'`; absolute times hold for one machine only. The figures of
every round are in `build/extraction.json`.
"""


def write_section(path: Path, title: str, text: str) -> None:
    """Put a section into the page, in the place of the one of that title or at the end, with when and where."""
    page = path.read_text(encoding="utf-8") if path.exists() else _TOP
    top, *sections = page.split("\n## ")
    section = f"{title}\n\n{text.strip()}\n\n{_measured()}\n"
    titles = [old.partition("\n")[0] for old in sections]
    if title in titles:
        sections[titles.index(title)] = section
    else:
        sections.append(section)
    path.write_text("\n\n## ".join(part.strip("\n") for part in [top, *sections]) + "\n", encoding="utf-8")
    print(f"wrote {path}")


def _measured() -> str:
    return (
        f"Measured on {time.strftime('%Y-%m-%d')}: {_processor()}, {os.cpu_count()} cores,"
        f" Python {platform.python_version()}."
    )


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            return next(line.partition(":")[2].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
