"""What few-shot evaluation found, as records, tables and a folder; it evaluates nothing."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from featx.tracking import write_run

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["FewShot"]


@dataclass(frozen=True, eq=False, repr=False)
class FewShot:
    """What few-shot evaluation found.

    Attributes
    ----------
    results : dict
        Plain values, as ``results.json`` holds them: ``data``, ``extractors``, ``protocol``, ``results`` (by extractor,
        head and shots ``mean``, ``std``, ``ci95``, the paired difference to the best and the verdict), ``best``,
        ``learning_curve``, ``notes``: see ``docs/few-shot.md``.
    accuracies : dict of (str, str, int) to float64 array of shape (n_episodes,)
        The accuracy of every episode by extractor, head and shots.
    """

    results: dict[str, Any]
    accuracies: dict[tuple[str, str, int], np.ndarray]

    def __repr__(self) -> str:
        best = ", ".join(
            f"{one['shots']}-shot {one['mean']:.3f} by {one['label']} with {one['head']}"
            for one in self.results["results"]
            if {key: one[key] for key in ("shots", "extractor", "head")} in self.results["best"]
        )
        return f"FewShot({self.results['protocol']['ways']}-way: {best})"

    def table(self) -> "pd.DataFrame":
        """Return the accuracy of every extractor with every head, a line for each number of shots."""
        import pandas as pd

        header, rows = _table(self.results["results"])
        return pd.DataFrame(rows, columns=header)

    def save(self, folder: str | os.PathLike[str]) -> Path:
        """Write ``results.json``, its tables as CSV files and, where there is a command, ``command.txt``.

        Parameters
        ----------
        folder : path
            Made where it is missing; a run of the same kind in it is replaced.

        Returns
        -------
        Path
            The folder.

        Raises
        ------
        UsageError
            If the folder holds something else than a run of ``few_shot``, or cannot be written to.
        OSError
            If a file cannot be written.
        """
        tables = {"results": _table(self.results["results"])}
        points = [
            {"extractor": curve["extractor"], "head": curve["head"], **point}
            for curve in self.results["learning_curve"]
            for point in curve["points"]
        ]
        if points:
            tables["learning_curve"] = _table(points)
        write_run(folder, results=self.results, tables=tables)
        return Path(folder)


def _table(records: Sequence[dict[str, Any]]) -> tuple[list[str], list[list[Any]]]:
    """Return records as a table, an interval as its two ends."""
    header: list[str] = []
    rows: list[list[Any]] = [[] for _ in records]
    for name in records[0]:
        if name == "parts":
            continue
        if not name.endswith("ci95"):
            header.append(name)
            for row, record in zip(rows, records, strict=True):
                row.append(record[name])
            continue
        header += [f"{name}_low", f"{name}_high"]
        for row, record in zip(rows, records, strict=True):
            row += record[name] or (None, None)
    return header, rows
