"""Runs that somebody else made, or that broke: names that attack, pictures that are gone, results of another shape."""

import copy
import json
import random
import resource

import pytest

from featx.errors import UsageError
from featx.report import write_report

KINDS = ["results", "few_shot_results", "regression"]


HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "' onmouseover='alert(1)",
    "</title></style></script><svg onload=alert(1)>",
    "{{ 7 * 7 }}{% raw %}",
    "javascript:alert(1)",
    "a\nfeatx: error: b\r\t\x00",
    "=cmd|' calc'!A0",
    "\u202egnp.exe\u2066\u2028\u2029",
    "\udcff\udc9b31m\ud800",
    "&lt;b&gt;&amp;",
    "x" * 3000,
    "蜂é",
    "",
]


def hostile_copy(value, names):
    """Replace every text that a user chose by a hostile one, the same by the same."""
    texts = {}

    def replaced(one, key=None):
        if isinstance(one, dict):
            return {name: replaced(item, name) for name, item in one.items()}
        if isinstance(one, list):
            return [replaced(item, key) for item in one]
        kept = (
            "verdict",
            "fusion",
            "kind",
            "metric",
            "task",
            "confidence_is",
            "suspects_by",
            "created",
            "baseline",
        )
        if not isinstance(one, str) or key in kept:
            return one
        return texts.setdefault(one, f"{names[len(texts) % len(names)]}{len(texts)}")

    return replaced(value)


@pytest.mark.parametrize("kind", KINDS)
def test_hostile_names_are_text_wherever_they_stand(elements, request, kind):
    results = request.getfixturevalue(kind)
    plain = elements(results)
    hostile = hostile_copy(results, HOSTILE)
    found = elements(hostile)
    assert len(hostile["results"]) == len(results["results"])
    assert {element.tag for element in found} <= {element.tag for element in plain} | {"wbr", "span"}
    assert {name for element in found for name in element.attributes} <= {
        name for element in plain for name in element.attributes
    } | {"title", "role"}
    assert [element.tag for element in found].count("script") == 1
    assert not any(name.startswith("on") for element in found for name in element.attributes)
    scripts = {
        "".join(element.texts) for page in (plain, found) for element in page if element.tag == "script"
    }
    assert len(scripts) == 1
    text = next(element.text for element in found if element.tag == "body")
    assert "<script>alert(1)</script>" in text
    assert "{{ 7 * 7 }}" in text
    assert all(char.isprintable() for char in text)
    # They are what they were, but for what cannot be printed.
    assert {element.attributes["data-extractor"] for element in found.having("data-contender")} >= {
        one["extractor"] for one in hostile["results"] if one["extractor"] and one["extractor"].isprintable()
    }


def test_pictures_that_are_gone_are_said_and_are_no_error(elements, results):
    for sample in results["inspection"]["samples"].values():
        sample["path"] = "/nowhere/<b>.png"
    found = elements(results)
    missing = [element for element in found if "missing" in element.attributes.get("class", "")]
    assert missing
    assert {element.attributes["title"] for element in missing} == {"its file is gone"}
    assert not any(element.tag == "image" for element in found)
    notes = next(element.text for element in found if element.has(id="notes"))
    n_samples = len(results["inspection"]["samples"])
    assert f"{n_samples} of {n_samples} pictures below " in notes
    assert "could not be shown" not in notes


def test_a_run_that_is_not_as_featx_writes_it_is_told_and_leaves_the_old_page(written, compared, tmp_path):
    """Break the results at random places: either there is a page, or one line, never a traceback."""
    generator = random.Random(0)
    without = copy.deepcopy(compared)
    for sample in without["inspection"]["samples"].values():
        sample["path"] = None
    page = written(without)
    before = page.read_bytes()
    refused = 0
    for _ in range(120):
        results = copy.deepcopy(without)
        place, key = generator.choice(list(places(results)))
        if generator.random() < 0.4:
            del place[key]
        else:
            place[key] = generator.choice([None, "text", -1, 1e308, [], {}, True, ["a"]])
        (tmp_path / "run" / "results.json").write_text(json.dumps(results))
        message = refusal(tmp_path / "run")
        if message is not None:
            refused += 1
            assert "\n" not in message
            assert page.read_bytes() == before
        before = page.read_bytes()
        assert {path.name for path in page.parent.iterdir()} == {"results.json", "report.html"}
    assert refused > 20


def test_the_part_that_is_not_as_featx_writes_it_is_named_in_plain_words(written, results, tmp_path):
    written(results)
    for name, value, fault in (
        ("n_samples", None, "'n_samples' is missing"),
        ("classes", 3, "a part of it has another form"),
    ):
        broken = copy.deepcopy(results)
        broken["data"].pop(name)
        if value is not None:
            broken["data"][name] = value
        (tmp_path / "run" / "results.json").write_text(json.dumps(broken))
        place = f"'{tmp_path / 'run' / 'results.json'}'"
        assert refusal(tmp_path / "run") == f"{place} is not as featx writes it: {fault}. Make the run again."


def test_a_full_disk_leaves_the_old_page(written, results, tmp_path):
    page = written(results)
    before = page.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) // 2, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            write_report(tmp_path / "run")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert page.read_bytes() == before
    assert {path.name for path in page.parent.iterdir()} == {"results.json", "report.html"}


def refusal(folder):
    try:
        write_report(folder)
    except UsageError as error:
        return str(error)
    return None


def places(value):
    """Yield every dict or list of some results with a key of it, a few of each list."""
    items = value.items() if isinstance(value, dict) else enumerate(value[:3])
    for key, item in items:
        yield value, key
        if isinstance(item, dict | list) and key != "samples":
            yield from places(item)
