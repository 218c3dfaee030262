from featx.wording import contender_name, contender_notes, counted


def one(label, notes=(), fusion=None):
    return {"label": label, "head": "logreg", "fusion": fusion, "notes": list(notes)}


def test_one_of_a_thing_is_no_plural():
    assert [counted(number, "fold") for number in (0, 1, 2, 12345)] == [
        "0 folds",
        "1 fold",
        "2 folds",
        "12,345 folds",
    ]
    assert [counted(number, "class", "classes") for number in (1, 2)] == ["1 class", "2 classes"]


def test_a_contender_is_named_by_what_tells_it_from_the_others():
    assert contender_name(one("hog")) == "hog with logreg"
    assert contender_name(one("hog+lbp", fusion="early")) == "hog+lbp with logreg"
    assert contender_name(one("hog+lbp", fusion="late")) == "hog+lbp (late fusion) with logreg"
    assert contender_name({"label": None, "head": "majority"}) == "majority"
    few_shot = {"label": "hog", "head": "centroid"}  # has no fusion
    assert contender_name(few_shot) == "hog with centroid"


def test_a_note_is_told_once_with_those_it_is_about():
    results = {
        "results": [one("a", ["slow"]), one("b", ["slow", "cut"]), one("c"), {"label": "d", "head": "x"}]
    }
    assert contender_notes(results) == ["a with logreg, b with logreg: slow", "b with logreg: cut"]
    assert contender_notes(results, name=lambda contender: contender["label"]) == ["a, b: slow", "b: cut"]


def test_of_many_contenders_the_first_are_named():
    def noted(n):
        return contender_notes(
            {"results": [one(str(at), ["slow"]) for at in range(n)]}, name=lambda it: it["label"]
        )

    assert noted(4) == ["0, 1, 2, 3: slow"]
    assert noted(6) == ["0, 1, 2, 3 more: slow"]
