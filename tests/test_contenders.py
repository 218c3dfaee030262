from types import SimpleNamespace

import pytest

from featx.contenders import Contender, check_distinct, read_contenders, specs_of
from featx.errors import UsageError

FEATURES = SimpleNamespace(
    specs=[SimpleNamespace(n_features=width, fingerprint=f"{width}") for width in (1, 2, 3)],
)


def test_each_extractor_is_a_part_once_however_many_contenders_have_it():
    contenders, parts = read_contenders(["hog", "resnet50+hog", ["lbp", "hog"], "hog+lbp+resnet50"])
    assert [part.text for part in parts] == ["hog", "resnet50", "lbp"]
    assert contenders == [
        Contender("hog", (0,)),
        Contender("resnet50+hog", (1, 0)),
        Contender("lbp+hog", (2, 0)),
        Contender("hog+lbp+resnet50", (0, 2, 1)),
    ]


def test_one_extractor_need_be_no_list(counted):
    extractor, _ = counted
    assert read_contenders("hog+lbp")[0] == [Contender("hog+lbp", (0, 1))]
    assert read_contenders(extractor) == ([Contender("module/mean", (0,))], [extractor])


@pytest.mark.parametrize(
    ("extractors", "message"),
    [
        ([], "expected at least one, such as 'resnet50', got none"),
        (["hog", "hog"], r"'hog' is given twice\. Name it once"),
        (["hog+lbp", "lbp+hog"], r"'lbp\+hog' is given twice \(as 'hog\+lbp'\)"),
        (["hog", 3], "got int"),
    ],
)
def test_what_cannot_be_compared_is_refused(extractors, message):
    with pytest.raises(UsageError, match=message):
        read_contenders(extractors)


def test_a_contender_has_its_own_specs_in_its_own_order():
    assert [spec.n_features for spec in specs_of(Contender("c+a", (2, 0)), FEATURES)] == [3, 1]


def test_what_is_written_differently_and_is_the_same_is_refused():
    two = SimpleNamespace(specs=[FEATURES.specs[0], FEATURES.specs[0], FEATURES.specs[1]])
    check_distinct([Contender("a", (0,)), Contender("a+c", (0, 2))], two)
    with pytest.raises(
        UsageError, match="extractors 'a' and 'torchvision/a' are the same: every vector is equal"
    ):
        check_distinct([Contender("a", (0,)), Contender("torchvision/a", (1,))], two)
