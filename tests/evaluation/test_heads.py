import hashlib
import subprocess
import sys

import pytest
from sklearn.cluster import KMeans
from sklearn.linear_model import Ridge, RidgeClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from featx.errors import UsageError
from featx.evaluation.heads import head_names, head_records, load_head


def test_the_shipped_heads_are_found_by_name():
    assert head_names() == sorted(
        ["centroid", "knn", "linear_svm", "logreg", "mlp", "ridge", "ridge_regression", "svm", "svr"]
    )
    for name in head_names():
        assert load_head(name).name == name


def test_heads_are_listed_without_importing_a_recipe_torch_or_h5py():
    code = (
        "import sys; from featx.evaluation.heads import head_names; head_names();"
        "assert not {'featx.pipelines.svm', 'torch', 'h5py'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_an_unknown_head_is_answered_with_close_matches_and_the_list():
    with pytest.raises(
        UsageError, match=r"unknown head 'logrek'\. Did you mean logreg\?.*centroid, knn, .*svr"
    ):
        load_head("logrek")


def test_class_weights_and_seed_are_passed_on():
    head = load_head("linear_svm", class_weight="balanced", random_state=3)
    assert head.pipeline[-1].class_weight == "balanced"
    assert head.pipeline[-1].random_state == 3


def test_class_weights_that_a_head_lacks_are_refused():
    with pytest.raises(UsageError, match="head 'knn' has no class weights"):
        load_head("knn", class_weight="balanced")
    with pytest.raises(UsageError, match="set it on the estimator itself"):
        load_head(SVC(), class_weight="balanced")


RECIPE = """
from sklearn.linear_model import RidgeClassifier
from sklearn.pipeline import make_pipeline
def build():
    return make_pipeline(RidgeClassifier())
def grid():
    return {"ridgeclassifier__alpha": [10.0, 1.0]}
"""


def test_a_recipe_of_the_users_own_is_loaded_by_its_path(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(RECIPE)
    known = hashlib.sha256(path.read_bytes()).hexdigest()
    assert head_records([load_head(path), load_head("centroid"), load_head(RidgeClassifier())]) == [
        {"name": "mine", "recipe": known},
        {"name": "centroid", "recipe": "built in"},
        {"name": "RidgeClassifier", "recipe": None},
    ]
    head = load_head(path)
    assert (head.name, head.task) == ("mine", "classification")
    assert head.candidates == [{"ridgeclassifier__alpha": 10.0}, {"ridgeclassifier__alpha": 1.0}]
    assert load_head(str(path)).name == "mine"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("def build(): ...", r"mine.py' lacks grid\(\); a recipe defines build"),
        ("1 +", "cannot be run: SyntaxError"),
        ("import no_such_package", "cannot be run: ModuleNotFoundError"),
        (
            "def build(): return 3\ndef grid(): return {}",
            r"mine.py': build\(\) should return .* got int. Mend",
        ),
        (
            "def build(): 1 / 0\ndef grid(): return {}",
            r"mine.py': build\(\) fails: ZeroDivisionError: .*Mend",
        ),
        (RECIPE.replace("10.0", "1 / 0"), r"mine.py': grid\(\) fails: ZeroDivisionError"),
        (
            RECIPE.replace("__alpha", "__alfa"),
            "names 'ridgeclassifier__alfa'.* mean 'ridgeclassifier__alpha'",
        ),
        (RECIPE.replace("[10.0, 1.0]", "10.0"), "grid of head 'mine' is not a search space"),
    ],
)
def test_a_file_that_is_no_recipe_says_what_is_wrong_with_it(tmp_path, text, message):
    path = tmp_path / "mine.py"
    path.write_text(text)
    with pytest.raises(UsageError, match=message):
        load_head(path)


def test_a_recipe_that_does_not_exist_is_named():
    with pytest.raises(UsageError, match=r"'nowhere/mine\.py' is not a file"):
        load_head("nowhere/mine.py")


def test_a_plain_estimator_is_a_head_without_a_search():
    estimator = make_pipeline(StandardScaler(), Ridge())
    head = load_head(estimator)
    assert (head.name, head.task, head.candidates) == ("Ridge", "regression", [{}])
    assert head.pipeline is not estimator


def test_an_estimator_that_predicts_no_label_is_refused():
    with pytest.raises(UsageError, match="'KMeans' is neither a classifier nor a regressor"):
        load_head(KMeans())
    with pytest.raises(UsageError, match="got StandardScaler"):
        load_head(StandardScaler())
    with pytest.raises(UsageError, match=r"a head is the name of one, .*got int"):
        load_head(3)
