import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from featx.errors import UsageError
from featx.samples.labels import classes_of, label_column, name_column, numbers_where_canonical, values_of


@pytest.mark.parametrize(
    ("values", "expected", "kind"),
    [
        (["b", "a"], ["b", "a"], "U"),
        (np.array(["b", "a"]), ["b", "a"], "U"),
        (np.array(["b", "a"], dtype=object), ["b", "a"], "U"),
        (pd.Series(["b", "a"], index=[5, 3]), ["b", "a"], "U"),
        (pd.Series(["b", "a"], dtype="category"), ["b", "a"], "U"),
        ([2, 1], [2, 1], "i"),
        (np.array([2, 1], dtype=np.uint8), [2, 1], "i"),
        ([0.5, 1], [0.5, 1.0], "f"),
        (np.array([0.5, 1], dtype=np.float16), [0.5, 1.0], "f"),
        ([True, False], ["True", "False"], "U"),
        (pa.chunked_array([["b"], ["a"]]), ["b", "a"], "U"),
    ],
)
def test_labels_of_every_form_become_text_or_64_bit_numbers(values, expected, kind):
    array = values_of(label_column(values, what="labels"))
    assert array.tolist() == expected
    assert array.dtype.kind == kind
    assert array.dtype.itemsize == 8 or kind == "U"


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.binary()])
def test_text_that_is_none_is_refused(kind):
    words = pa.Array.from_buffers(pa.binary(), 2, pa.array([b"a", b"\xff"]).buffers())
    large = pa.Array.from_buffers(
        pa.large_binary(), 2, pa.array([b"a", b"\xff"], pa.large_binary()).buffers()
    )
    array = (large if kind == pa.large_string() else words).view(kind)
    with pytest.raises(UsageError, match="labels: expected UTF-8 text"):
        label_column(array, what="labels")


def test_tensors_are_labels_too():
    torch = pytest.importorskip("torch")
    assert values_of(label_column(torch.tensor([3, 1]), what="labels")).tolist() == [3, 1]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (["a", None, ""], ["a", None, None]),
        (["a", float("nan")], ["a", None]),
        (pd.Series(["a", pd.NA]), ["a", None]),
    ],
)
def test_missing_text_is_none(values, expected):
    assert values_of(label_column(values, what="labels")).tolist() == expected


def test_missing_numbers_are_nan():
    for values in ([1, None], [1.0, float("nan")], pd.Series([1, None], dtype="Int64")):
        array = values_of(label_column(values, what="labels"))
        assert array.dtype == "float64"
        assert array[0] == 1
        assert np.isnan(array[1])


@pytest.mark.parametrize("values", [[], [None, None], ["", ""], [float("nan")]])
def test_no_label_at_all_is_no_column(values):
    assert label_column(values, what="labels") is None


@pytest.mark.parametrize(
    "values",
    [["a", 1], [1, "a"], [[1], [2]], np.zeros((2, 2)), ["\udcff"], [2**70], [b"\xff"], 3, [2**64 - 1], [{}]],
)
def test_what_is_neither_text_nor_numbers_is_refused_by_name(values):
    with pytest.raises(UsageError, match=r"^labels: ") as caught:
        label_column(values, what="labels")
    assert "\n" not in str(caught.value)


def test_classes_are_sorted_and_only_those_in_use():
    column = label_column(["c", "a", "b", None], what="labels")
    assert classes_of(column) == ["a", "b", "c"]
    assert classes_of(column.take([0, 3])) == ["c"]
    assert classes_of(label_column([10, 9, 10], what="labels")) == [9, 10]
    assert classes_of(label_column([1.5], what="labels")) == []


def test_names_are_text_even_when_given_as_numbers():
    assert values_of(name_column([1, 2, 1], what="groups")).tolist() == ["1", "2", "1"]
    assert values_of(name_column(["x", None], what="groups")).tolist() == ["x", None]
    assert name_column([None], what="groups") is None


def test_arrays_given_out_may_be_written_to():
    column = label_column(np.array([1, 2]), what="labels")
    values_of(column)[0] = 5
    assert values_of(column).tolist() == [1, 2]


def test_numbers_are_read_exactly_or_not_at_all():
    assert numbers_where_canonical(pa.array(["9007199254740993"])).to_pylist() == [9007199254740993]
    assert numbers_where_canonical(pa.array(["9223372036854775808"])).to_pylist() == ["9223372036854775808"]
    assert numbers_where_canonical(pa.array(["1\n"])).to_pylist() == ["1\n"]
    assert numbers_where_canonical(pa.array([None], pa.string())).to_pylist() == [None]
