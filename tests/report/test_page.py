import base64
import hashlib
import re

import numpy as np
import pytest
from PIL import Image

KINDS = ["results", "few_shot_results", "regression"]


@pytest.mark.parametrize("kind", KINDS)
def test_every_contender_stands_with_its_very_numbers(elements, request, kind):
    results = request.getfixturevalue(kind)
    if kind == "few_shot_results":
        verdicts = ["best", "worse", "as good as the best", "best"]
        for one, verdict in zip(results["results"], verdicts, strict=True):
            one.update(verdict=verdict, p_value=None)
        results["protocol"]["chance"] = 0.3
    found = elements(results)
    rows = found.having("data-contender")
    if kind == "few_shot_results":
        guessing = {"extractor": None, "mean": 0.3, "ci95": None, "verdict": "baseline"}
        ranked = sorted(results["results"], key=lambda one: (one["shots"], -one["mean"]))
        expected = [*ranked[:2], guessing, *ranked[2:], guessing]
        scores = expected
    else:
        expected = [*results["results"][1:], results["results"][0]]
        scores = [one["metrics"][results["protocol"]["metric"]] for one in expected]
    assert len(rows) == len(expected)
    for row, one, score in zip(rows, expected, scores, strict=True):
        assert row.attributes["data-extractor"] == (one["extractor"] or "")
        assert float(row.attributes["data-mean"]) == score["mean"]
        if score["ci95"]:
            assert [float(row.attributes[f"data-{end}"]) for end in ("low", "high")] == score["ci95"]
        assert row.attributes["data-verdict"] == one["verdict"]
        [mean] = [element for element in found if element.tag == "strong" and row in element.parents]
        assert float(mean.text) == pytest.approx(abs(score["mean"]), abs=6e-4)


def test_intervals_are_drawn_where_the_numbers_are(elements, results):
    found = elements(results)
    [scale] = [
        e for e in found if e.has(**{"class": "scale"}) and any(p.has(id="leaderboard") for p in e.parents)
    ]
    ticks = [e for e in found if e.tag == "text" and scale in e.parents]
    places = {float(tick.text): float(tick.attributes["x"].rstrip("%")) for tick in ticks}
    (first, x_first), (last, x_last) = min(places.items()), max(places.items())
    drawn = 0
    for row in found.having("data-contender"):
        inside = [element for element in found if row in element.parents]
        for element in inside:
            if element.has(**{"class": "span"}):
                drawn += 1
                for end, place in (("low", "x1"), ("high", "x2")):
                    value = min(1.0, max(0.0, float(row.attributes[f"data-{end}"])))
                    x = x_first + (value - first) / (last - first) * (x_last - x_first)
                    assert float(element.attributes[place].rstrip("%")) == pytest.approx(x, abs=0.6)
    assert drawn >= len(results["results"]) - 1


@pytest.mark.parametrize("kind", KINDS)
def test_the_mark_of_a_mean_lies_within_its_interval(elements, request, kind):
    found = elements(request.getfixturevalue(kind))
    spans = [element for element in found if element.has(**{"class": "span"})]
    assert len(spans) >= 4
    for span in spans:
        [chart] = [
            element for element in span.parents if element.attributes.get("class", "").startswith("interval")
        ]
        inside = [element for element in found if chart in element.parents]
        [mark] = [
            e.attributes for e in inside if e.tag == "circle" or (e.tag == "svg" and "x" in e.attributes)
        ]
        x = float(mark.get("cx", mark.get("x")).rstrip("%"))
        assert float(span.attributes["x1"].rstrip("%")) <= x <= float(span.attributes["x2"].rstrip("%"))


def test_the_confusion_matrix_and_the_scores_by_class_are_those_of_the_run(elements, results):
    found, details = elements(results), results["best_details"]
    cells = {
        (cell.attributes["data-true"], cell.attributes["data-predicted"]): int(cell.text)
        for cell in found.having("data-true")
    }
    classes = details["classes"]
    for cell in found.having("data-true"):
        is_right = cell.attributes["data-true"] == cell.attributes["data-predicted"]
        assert ("right" in cell.attributes["class"].split()) == is_right
    assert cells == {
        (true, predicted): details["confusion"][row][column]
        for row, true in enumerate(classes)
        for column, predicted in enumerate(classes)
    }
    for one in details["per_class"]:
        [row] = [element for element in found.having("data-class") if element.has(data_class=one["class"])]
        scores = [
            float(cell.attributes["data-score"]) for cell in found.having("data-score") if row in cell.parents
        ]
        assert scores == [one["precision"], one["recall"], one["f1"]]
        assert [e.text for e in found if e.has(**{"class": "number"}) and row in e.parents] == [
            str(one["support"])
        ]


@pytest.mark.parametrize("kind", ["results", "few_shot_results"])
def test_the_learning_curve_is_a_table_too(elements, request, kind):
    results = request.getfixturevalue(kind)
    curves = results["learning_curve"] if kind == "few_shot_results" else [results["learning_curve"]]
    shown = [cell.attributes["data-point-mean"] for cell in elements(results).having("data-point-mean")]
    assert sorted(map(float, shown)) == sorted(point["mean"] for curve in curves for point in curve["points"])


def test_all_labels_are_no_labels_per_class_and_a_curve_has_its_note(elements, results):
    results["learning_curve"]["note"] = "its parameters were chosen with all labels"
    found = elements(results)
    heads = [e.text for e in found if e.tag == "th" and any(p.has(id="labels") for p in e.parents)]
    n_labels = results["learning_curve"]["points"][-1]["n_labels"]
    assert heads[-1] == f"all ({n_labels} in all)"
    text = next(e.text for e in found if e.has(id="labels"))
    assert "Apart, to the right: fitted on all labels" in text
    assert text.endswith("Its parameters were chosen with all labels.")
    results["learning_curve"]["points"].pop()
    assert "Apart" not in elements(results).lead("labels")


def test_a_difference_of_shares_is_shown_within_what_is_possible(elements, results):
    results["results"][0].update(difference=-0.4, difference_ci95=[-1.643, 0.976])
    results["fusion_gains"][0].update(gain=0.1, ci95=[-0.9, 1.1])
    found = elements(results)
    text = next(e.text for e in found if e.has(id="leaderboard"))
    assert "\u22121.000 to +0.976" in text
    gains = next(e.text for e in found if e.has(id="fusion"))
    assert "\u22120.900 to +1.000" in gains


def test_the_title_may_break_where_names_join(written, results):
    results["results"][1]["label"] = "color_histogram+pixels"
    title = re.search("<h1.*?</h1>", written(results).read_text())[0]
    assert '<span class="word">color_<wbr>histogram+<wbr>pixels</span> with ' in title


def test_errors_suspects_and_pairs_are_those_of_the_run(elements, results):
    inspection = results["inspection"]
    row, other = inspection["map"]["rows"][:2]
    inspection["confidence_is"] = "probability"
    for number, one in enumerate(inspection["wrong"]):
        one["confidence"] = 0.987 - number / 100
    inspection["near_duplicates"] = [
        {"rows": [row, other], "labels": ["blue", "red"], "similarity": 0.91234, "exact": False},
        {"rows": [other, row], "labels": ["blue", "blue"], "similarity": 1.0, "exact": True},
    ]
    found = elements(results)
    text = {section.attributes["id"]: section.text for section in found if section.tag == "section"}
    shown = [int(element.attributes["data-row"]) for element in found.having("data-row")]
    assert shown == [one["row"] for name in ("wrong", "suspects") for one in inspection[name]]
    assert inspection["wrong"]
    for one in inspection["wrong"]:
        assert f"{one['label']} predicted {one['predicted']}" in text["wrong"]
        assert f"probability {one['confidence']:.2f}" in text["wrong"]
    assert "similarity 0.912 labels differ blue and red" in text["duplicates"]
    assert "exact copy blue" in text["duplicates"]


def test_errors_of_a_head_without_confidence_are_not_called_confident(elements, results):
    inspection = results["inspection"]
    inspection["confidence_is"] = None
    for one in inspection["wrong"]:
        one["confidence"] = None
    found = elements(results)
    text = next(e.text for e in found if e.has(id="wrong"))
    assert text.startswith(f"Errors {len(inspection['wrong'])} of ")
    assert not any(word in text for word in ("confident", "probability"))


def test_the_map_has_every_point_once_and_rings_the_errors(elements, results):
    found, inspection = elements(results), results["inspection"]
    points = found.having("data-point")
    assert sorted(int(point.attributes["data-point"]) for point in points) == inspection["map"]["rows"]
    ringed = {int(point.attributes["data-point"]) for point in points if "ring" in point.attributes["class"]}
    predicted = dict(zip(inspection["map"]["rows"], inspection["map"]["predicted"], strict=True))
    labels = {row: inspection["samples"][str(row)]["label"] for row in predicted}
    assert ringed == {row for row in predicted if predicted[row] != labels[row]}
    assert ringed
    # They come last, on top of what they lie on.
    assert all("ring" in point.attributes["class"] for point in points[-len(ringed) :])
    titles = [element.text for element in found if element.tag == "title" and element.parents[-1] in points]
    assert len(titles) == len(points)
    assert any(title.endswith(": red, predicted blue") for title in titles)


def test_residuals_stand_in_for_confusion_in_a_regression(elements, regression):
    found = elements(regression)
    sections = [element.attributes["id"] for element in found if element.tag == "section"]
    assert "residuals" in sections
    assert not {"confusion", "classes", "labels", "suspects"} & set(sections)
    assert "residual -30.5" in next(e.text for e in found if e.has(id="wrong"))
    title = next(element.text for element in found if element.tag == "h1")
    assert re.fullmatch(r"pixels\S* with \w+ is best: RMSE [\d.]+ \([\d.]+ to [\d.]+\)", title)
    best = regression["results"][1]["metrics"]["neg_root_mean_squared_error"]
    low, high = map(float, re.search(r"\((.*) to (.*)\)", title).groups())
    assert (low, high) == (
        pytest.approx(-best["ci95"][1], rel=1e-3),
        pytest.approx(-best["ci95"][0], rel=1e-3),
    )


def test_provenance_is_whole(elements, results):
    text = next(element.text for element in elements(results) if element.has(id="provenance"))
    for value in (
        results["command"],
        results["directory"],
        results["data"]["digest"],
        *results["versions"].values(),
    ):
        assert value in text
    for extractor in results["extractors"]:
        assert extractor["text"] in text
        assert extractor["fingerprint"] in text
        assert '"preprocessing"' in text or '"name"' in text


@pytest.mark.parametrize("kind", KINDS)
def test_a_page_is_sound_and_can_be_used_without_eyes_or_pointer(elements, request, kind):
    found = elements(request.getfixturevalue(kind))
    ids = [element.attributes["id"] for element in found.having("id")]
    assert len(set(ids)) == len(ids)
    for name in ("href", "aria-labelledby"):
        for element in found.having(name):
            target = element.attributes[name]
            if name == "href" and element.tag in ("link", "image"):
                assert target.startswith("data:")
            elif target != "#none":
                assert target.lstrip("#") in ids, target
    tags = [element.tag for element in found]
    assert [tags.count(tag) for tag in ("html", "main", "nav", "h1", "footer", "title")][:5] == [
        1,
        1,
        1,
        1,
        1,
    ]
    for table in (element for element in found if element.tag == "table"):
        inside = [element for element in found if table in element.parents]
        assert any(element.tag == "caption" and element.text for element in inside)
        assert all("scope" in element.attributes for element in inside if element.tag == "th")
    for drawing in (element for element in found if element.tag == "svg"):
        hidden = any(element.has(aria_hidden="true") for element in [drawing, *drawing.parents])
        assert hidden or (drawing.has(role="img") and drawing.attributes["aria-label"])
    for section in (element for element in found if element.tag == "section"):
        assert "aria-labelledby" in section.attributes
    language = next(element for element in found if element.tag == "html")
    assert language.has(lang="en")


def test_the_only_script_is_the_one_that_the_policy_allows(elements, results):
    found = elements(results)
    [script] = [element for element in found if element.tag == "script"]
    digest = hashlib.sha256("".join(script.texts).encode()).digest()
    [policy] = [e.attributes["content"] for e in found if e.has(http_equiv="Content-Security-Policy")]
    assert policy == (
        "default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
        f"script-src 'sha256-{base64.b64encode(digest).decode()}'; base-uri 'none'; form-action 'none'"
    )


def test_a_page_names_no_address_to_fetch(written, results):
    text = written(results).read_text()
    assert re.findall(r"https?://|//[a-z]|@import|url\(", re.sub(r"base64,[^\"]*", "", text)) == []


def test_a_page_of_a_large_map_stays_small(written, results, tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (300, 300, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "noise.png")
    inspection = results["inspection"]
    rows = list(range(2000))
    inspection["near_duplicates"] = [
        {"rows": [row, row + 1], "labels": ["red", "red"], "similarity": 0.9, "exact": False}
        for row in range(100, 200, 2)
    ]
    inspection["map"] = {
        "method": "t-SNE",
        "rows": rows,
        "x": [row % 50 for row in rows],
        "y": [row // 50 for row in rows],
        "predicted": ["red"] * 2000,
    }
    for row in rows:
        sample = {
            "id": f"a/rather/long/path/of/a/picture/{row:06}.png",
            "path": str(tmp_path / "noise.png"),
            "label": "red",
        }
        inspection["samples"].setdefault(str(row), sample)
    size = written(results).stat().st_size
    assert 1_500_000 < size < 3_000_000


def test_many_classes_are_shown_by_their_worst(elements, results):
    classes = [f"class {number}" for number in range(70)]
    confusion = [[9 if row == column else 0 for column in range(70)] for row in range(70)]
    confusion[3][4], confusion[0][1] = 5, 2
    per_class = [
        {"class": name, "precision": 1.0, "recall": 1.0, "f1": 1.0 - number / 100, "support": 9}
        for number, name in enumerate(classes)
    ]
    results["best_details"] = {"classes": classes, "confusion": confusion, "per_class": per_class}
    found = elements(results)
    text = {element.attributes["id"]: element.text for element in found if element.tag == "section"}
    assert found.having("data-true") == []
    assert (
        "Most frequent errors class 3 taken for class 4 5 of 14 class 0 taken for class 1 2 of 11"
        in text["confusion"]
    )
    assert [element.attributes["data-class"] for element in found.having("data-class")] == classes[:9:-1]
    assert "10 more are in results.json" in text["classes"]


def test_times_and_widths_stand_in_the_leaderboard(elements, results):
    one = results["results"][1]
    one.update(fit_seconds=1.26, predict_seconds=0.0123, n_features=1792)
    found = elements(results)
    row, *_ = found.having("data-contender")
    cells = {
        e.attributes["data-name"]: e.text for e in found if "data-name" in e.attributes and row in e.parents
    }
    assert (cells["features"], cells["fit, predict"]) == ("1,792", "1.3 s 12 ms")


def test_what_was_sought_and_not_found_is_said(elements, results, regression):
    results["inspection"].update(wrong=[], suspects=[], near_duplicates=[])
    results["inspection"]["counts"].update(wrong=0, suspects=0)
    found = elements(results)
    assert found.lead("wrong") == "None among 42 samples tested."
    assert found.lead("suspects").startswith("None found among 42 samples tested, by confident learning on")
    assert found.lead("duplicates").startswith("None found: no two samples")
    links = {e.attributes["href"] for e in found if e.tag == "a"}
    assert links >= {"#wrong", "#suspects", "#duplicates"}
    # Of numbers no label is called wrong, so that none was found would not be true.
    assert not any(e.has(id="suspects") for e in elements(regression))


def test_one_of_a_thing_is_no_plural(elements, results):
    results["data"].update(n_samples=1, classes=["red"], counts=[1], n_failed=1, n_duplicates=1)
    results["results"][2:] = []
    results["fusion_gains"] = []
    results["inspection"]["wrong"] = results["inspection"]["wrong"][:1]
    results["inspection"]["counts"].update(tested=1, wrong=1)
    results["inspection"]["map"] = {"method": "t-SNE", "rows": [], "x": [], "y": [], "predicted": []}
    found = elements(results)
    facts = next(e.text for e in found if e.has(**{"class": "facts"}))
    assert facts == (
        "1 sample 1 class 1 contender 3 folds, nested, the same for all 1 sample failed 1 exact copy"
    )
    assert "1 of 1 error among 1 sample tested" in found.lead("wrong")


def test_heads_of_the_protocol_are_named_with_where_they_are_from(elements, results):
    results["protocol"].update(
        class_weight={"red": 2.0, "blue": 1.0},
        heads=[
            {"name": "ridge", "recipe": "built in"},
            {"name": "mine", "recipe": "0123456789abcdef" * 4},
            {"name": "own", "recipe": None},
        ],
    )
    text = next(e.text for e in elements(results) if e.has(id="provenance"))
    assert "class weightred: 2.0, blue: 1.0" in text
    assert "headsridge (built in), mine (recipe 0123456789ab), own (given from Python)" in text
