"""PIL images, arrays, tensors and map-style datasets as a SampleTable; their pixels are made on reading."""

import logging
import sys
from typing import Any, final

import numpy as np
import pyarrow as pa

from featx.errors import DecodeError, UsageError
from featx.samples.decode import to_rgb
from featx.samples.labels import label_column
from featx.samples.table import SampleTable

__all__ = ["RGBItems", "is_instance_of", "read_memory"]

_log = logging.getLogger(__name__)

_EXPECTED = "expected a PIL image, a uint8 array (h, w) or (h, w, 1|3|4), or a uint8 tensor (1|3|4, h, w)"


def is_instance_of(value: object, module: str, name: str) -> bool:
    """Say whether a value is of a class, without importing its module: unless loaded, it cannot be."""
    loaded = sys.modules.get(module)
    return loaded is not None and isinstance(value, getattr(loaded, name))


def read_memory(data: Any) -> SampleTable:
    """Describe images in memory, or a map-style dataset that gives them, as samples.

    Parameters
    ----------
    data : sequence
        Has a length and gives, by position, an image (PIL image, uint8 array or uint8 tensor) or a tuple
        that begins with an image and a label. `targets` or `labels` of it, when they are as many, are the
        labels, and `classes` their names; else labels are collected in one pass.

    Returns
    -------
    SampleTable
        Ids are positions: "0", "1"...

    Raises
    ------
    UsageError
        If the first item is not such an image, or the labels are neither text nor numbers.
    """
    first = _item(data, 0)
    if not isinstance(first, Exception) and (problem := _problem(_image(first))):
        raise UsageError(f"item 0 of {type(data).__name__}: {_EXPECTED}; {problem}")
    return SampleTable(
        id_column=pa.array(range(len(data)), type=pa.int64()).cast(pa.string()).cast(pa.large_binary()),
        items=RGBItems(data),
        label_column=_labels(data, first),
    )


@final
class RGBItems:
    """Items of a data set as RGB pixels, made by the decode policy each time one is asked for.

    Parameters
    ----------
    data : sequence
        As for `read_memory`.
    """

    def __init__(self, data: Any) -> None:
        self._data = data

    def __len__(self) -> int:
        return len(self._data)

    def __getitem__(self, index: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
        """Give one image, a uint8 array of shape (height, width, 3).

        Raises
        ------
        DecodeError
            If the item is not a picture, or the data set fails to give it.
        """
        item = _item(self._data, index)
        if isinstance(item, Exception):
            reason = " ".join(str(item).split())[:200]
            raise DecodeError(f"item {index} cannot be had: {type(item).__name__}: {reason}") from item
        image = _image(item)
        if problem := _problem(image):
            raise DecodeError(f"item {index}: {_EXPECTED}; {problem}")
        return _pixels(image)


def _item(data: Any, index: int) -> Any:
    """Give an item, or what went wrong: one bad item must not take the others with it."""
    try:
        return data[index]
    except Exception as error:
        return error


def _image(item: Any) -> Any:
    return item[0] if isinstance(item, tuple | list) and len(item) > 0 else item


def _problem(image: Any) -> str | None:
    """Say what is wrong with an image's type, dtype or shape, or None."""
    if is_instance_of(image, "PIL.Image", "Image"):
        return None
    tensor = is_instance_of(image, "torch", "Tensor")
    if not tensor and not isinstance(image, np.ndarray):
        return f"got {type(image).__name__}"
    dtype = str(image.dtype).removeprefix("torch.")
    if dtype != "uint8":
        return f"got {dtype}; drop ToTensor and normalisation, the extractor brings its own"
    shape = tuple(image.shape)
    channels = shape[0 if tensor else 2] if len(shape) == 3 else 1
    if len(shape) not in (2, 3) or channels not in (1, 3, 4) or 0 in shape:
        return f"got shape {shape}"
    return None


def _pixels(image: Any) -> np.ndarray[Any, np.dtype[np.uint8]]:
    from PIL import Image

    if is_instance_of(image, "torch", "Tensor"):
        image = image.cpu().numpy()
        image = image.transpose(1, 2, 0) if image.ndim == 3 else image
    if isinstance(image, np.ndarray):
        if image.ndim == 3 and image.shape[2] == 3:
            return np.ascontiguousarray(image)
        image = Image.fromarray(np.ascontiguousarray(image.squeeze(2) if image.shape[2:] == (1,) else image))
    return np.array(to_rgb(image))


def _labels(data: Any, first: Any) -> pa.Array | None:
    for name in ("targets", "labels"):
        values: Any = getattr(data, name, ())
        if hasattr(values, "__len__") and len(values) == len(data):
            break
    else:
        if not isinstance(first, Exception) and _label(first) is None:
            return None
        _log.info("%s has no targets: collecting labels, one pass over its items", type(data).__name__)
        values = [_label(_item(data, index)) for index in range(len(data))]
    column = label_column(values, what=f"labels of {type(data).__name__}")
    return _named(column, getattr(data, "classes", None))


def _label(item: Any) -> Any:
    if not isinstance(item, tuple | list) or len(item) < 2:
        return None
    return item[1].item() if hasattr(item[1], "item") else item[1]


def _named(column: pa.Array | None, classes: Any) -> pa.Array | None:
    """Replace class numbers by class names where the data set has a name for each."""
    if column is None or not pa.types.is_integer(column.type) or not isinstance(classes, list | tuple):
        return column
    numbers = column.drop_null().to_numpy()
    names_all = all(isinstance(name, str) for name in classes)
    if not names_all or numbers.min() < 0 or numbers.max() >= len(classes):
        return column
    return pa.DictionaryArray.from_arrays(column.cast(pa.int32()), pa.array(classes, type=pa.string()))
