"""What can be said of extractors by name alone; the lengths of their vectors, slow to find, are remembered."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from featx.cache import Hints
from featx.engine.identify import package_versions, rules
from featx.errors import FeatxError
from featx.extractors import registry

__all__ = ["describe"]


def describe(source: str, names: Sequence[str], *, cache: Path | None) -> dict[str, dict[str, Any]]:
    """Describe extractors of one source, for listings.

    Parameters
    ----------
    source : str
        ``torchvision``, ``timm``, ``descriptor``, or another installed one.
    names : sequence of str
        Of the source's names.
    cache : Path or None
        Folder whose hints remember the feature counts; one that is not there is not made.

    Returns
    -------
    dict of str to dict
        By name ``n_features``, without any keys, and what `Source.describe` says. Where they cannot be counted it is
        None, and ``reason`` says why.
    """
    found = registry.load_source(source)
    question = json.dumps(
        {"n_features": source, "packages": package_versions(), "rules": rules()}, sort_keys=True
    )
    with Hints(cache / "hints.sqlite" if cache is not None and cache.is_dir() else None) as hints:
        known = dict(hints.identity(question) or {})
        missing = [name for name in names if name not in known]
        try:
            known.update((name, _count(found, name)) for name in missing)
        finally:  # also when interrupted: timm has thousands
            if missing:
                hints.remember_identity(question, known)
    return {name: {**_told(known[name]), **found.describe(name)} for name in names}


def _count(source: registry.Source, name: str) -> int | str:
    try:
        return source.count_features(name)
    except FeatxError as error:  # one odd network is no reason to show none
        return str(error)


def _told(count: int | str) -> dict[str, Any]:
    return {"n_features": None, "reason": count} if isinstance(count, str) else {"n_features": count}
