"""Labels, groups and splits as columns, and back as arrays; what they mean is not its business."""

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from featx.errors import UsageError

__all__ = ["arrow_array", "classes_of", "label_column", "name_column", "numbers_where_canonical", "values_of"]


def arrow_array(values: Any, *, what: str) -> pa.Array:
    """Turn an array-like into one pyarrow array; NaN and None become nulls.

    Parameters
    ----------
    values : array-like of shape (n_samples,)
        A list, an array, a pandas Series, a torch tensor or a pyarrow array.
    what : str
        What the values are, for the error.

    Raises
    ------
    UsageError
        If the values are of mixed types, not one-dimensional, or not valid text.
    """
    if isinstance(values, pa.Array | pa.ChunkedArray):
        array = values
    else:
        try:
            array = pa.array(np.asarray(values) if hasattr(values, "__array__") else values, from_pandas=True)
        except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
            reason = " ".join(str(error).split())
            raise UsageError(f"{what}: expected one text or one number for each sample; {reason}") from error
    return array.combine_chunks() if isinstance(array, pa.ChunkedArray) else array


def label_column(values: Any, *, what: str) -> pa.Array | None:
    """Turn labels into a column: text as dictionary<int32, string>, numbers as int64 or float64.

    Empty text, NaN and None mean "no label" and become nulls. Booleans become the text "True" and "False".

    Parameters
    ----------
    values : array-like of shape (n_samples,)
        The labels.
    what : str
        What the values are, for the error.

    Returns
    -------
    pyarrow.Array or None
        None when there is no label at all.

    Raises
    ------
    UsageError
        If the labels are neither text nor numbers.
    """
    array = arrow_array(values, what=what)
    if pa.types.is_dictionary(array.type):
        array = array.cast(array.type.value_type)
    if array.null_count == len(array):
        return None
    kind = array.type
    try:
        if pa.types.is_boolean(kind):
            array = pc.if_else(array, "True", "False").dictionary_encode()
        elif pa.types.is_integer(kind):
            array = array.cast(pa.int64())
        elif pa.types.is_floating(kind) or pa.types.is_decimal(kind):
            array = array.cast(pa.float64())
            array = pc.if_else(pc.is_nan(array), pa.scalar(None, pa.float64()), array)
        elif _is_text(kind):
            array = array.cast(pa.string())
            array.validate(full=True)  # a Parquet file may say of any bytes that they are text
            array = pc.if_else(pc.equal(array, ""), pa.scalar(None, pa.string()), array).dictionary_encode()
        else:
            raise UsageError(f"{what}: expected text or numbers, got {kind}")
    except pa.ArrowInvalid as error:
        raise UsageError(f"{what}: expected UTF-8 text or 64-bit numbers; {error}") from error
    return None if array.null_count == len(array) else array


def name_column(values: Any, *, what: str) -> pa.Array | None:
    """Turn group or split names into dictionary<int32, string>; numbers become their text.

    Parameters
    ----------
    values : array-like of shape (n_samples,)
        The names; empty text, NaN and None become nulls.
    what : str
        What the values are, for the error.

    Returns
    -------
    pyarrow.Array or None
        None when there is no name at all.

    Raises
    ------
    UsageError
        If the names are neither text nor numbers.
    """
    column = label_column(values, what=what)
    if column is None or pa.types.is_dictionary(column.type):
        return column
    return column.cast(pa.string()).dictionary_encode()


def numbers_where_canonical(text: pa.Array) -> pa.Array:
    """Read text as numbers when every non-empty cell is a canonical number, else return it as it is.

    "007" and "+5" are names, and one name makes all of them names. Next to numbers, "nan" and "NaN" are
    missing numbers.

    Parameters
    ----------
    text : pyarrow.Array of string
        Cells of a CSV column; empty ones are null.

    Returns
    -------
    pyarrow.Array of int64, float64 or string
    """
    cells = text.drop_null()
    number = pc.match_substring_regex(cells, r"\A-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?\z")
    either = pc.or_(number, pc.is_in(cells, value_set=pa.array(["nan", "NaN"])))
    if not pc.any(number).as_py() or not pc.all(either).as_py():
        return text
    whole = pc.all(pc.match_substring_regex(cells, r"\A-?[0-9]+\z")).as_py()
    try:
        return text.cast(pa.int64() if whole else pa.float64())
    except pa.ArrowInvalid:
        # More digits than an int64 holds: a serial number, and as a float two of them could become one.
        return text


def values_of(column: pa.Array) -> np.ndarray[Any, Any]:
    """Give a column as a numpy array in which a missing value cannot pass for a real one.

    Returns
    -------
    ndarray of shape (n_samples,)
        Text as str, or as objects with None where values are missing; numbers as int64 or float64, and as
        float64 with NaN where values are missing.
    """
    if not pa.types.is_dictionary(column.type):
        return np.array(column.to_numpy(zero_copy_only=False))
    names = np.array([*column.dictionary.to_pylist(), None], dtype=object)
    values: np.ndarray[Any, Any] = names[
        column.indices.fill_null(len(names) - 1).to_numpy(zero_copy_only=False)
    ]
    return values if column.null_count else values.astype(str)


def classes_of(column: pa.Array) -> list[str] | list[int]:
    """Give the distinct values in use, sorted; [] for floating-point numbers, which are no classes."""
    if pa.types.is_floating(column.type):
        return []
    return sorted(value for value in pc.unique(column).to_pylist() if value is not None)


def _is_text(kind: pa.DataType) -> bool:
    text = pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
    return bool(text or pa.types.is_binary(kind) or pa.types.is_large_binary(kind))
