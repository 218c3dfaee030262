"""Hand-made features, one function each, from an RGB image to a vector; no weights, no caching of vectors.

A new descriptor is one function: decorate it with ``_describes``, give it the image and keyword-only int or
float parameters with defaults, and it can be named, validated and listed like the others.
"""

import difflib
import inspect
import math
import numbers
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from featx.errors import UsageError
from featx.extractors.gabor_bank import gabor_bank

__all__ = ["DESCRIPTORS", "Descriptor", "compute", "n_features", "resolve"]

Number = int | float

_LARGEST_INTEGER = 1024
_LARGEST_WORK = 1 << 24
_descriptors: dict[str, "Descriptor"] = {}


@dataclass(frozen=True)
class Descriptor:
    """One hand-made feature and all that identifies its result.

    Attributes
    ----------
    name : str
        Its function's name.
    function : callable
        Takes an RGB image and all `parameters` as keywords, returns an array of shape (n_features,).
    parameters : mapping of str to int or float
        Every parameter with its default, which also sets its type.
    version : int
        Goes up whenever the same image and parameters would give other values.
    summary : str
        One line for listings.
    """

    name: str
    function: Callable[..., np.ndarray]
    parameters: Mapping[str, Number]
    version: int
    summary: str


DESCRIPTORS: Mapping[str, Descriptor] = MappingProxyType(_descriptors)


def resolve(name: str, /, **parameters: Number) -> dict[str, Number]:
    """Complete a descriptor's parameters with its defaults, in one canonical form, fit for an identity.

    Returns
    -------
    dict of str to int or float
        Every parameter in the order of the function's signature: plain Python numbers, of the default's type.

    Raises
    ------
    UsageError
        For an unknown descriptor or parameter, or a value of the wrong type or size.

    Examples
    --------
    >>> resolve("hog", cell=32)
    {'size': 128, 'orientations': 9, 'cell': 32, 'block': 2}
    """
    descriptor = _named(name)
    unknown = next((parameter for parameter in parameters if parameter not in descriptor.parameters), None)
    if unknown is not None:
        known = ", ".join(descriptor.parameters)
        close = difflib.get_close_matches(unknown, descriptor.parameters, n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise UsageError(f"descriptor {name!r} has no parameter {unknown!r}; expected one of: {known}.{hint}")
    return {
        parameter: _canonical(name, parameter, parameters.get(parameter, default), default)
        for parameter, default in descriptor.parameters.items()
    }


def compute(name: str, image: Image.Image, /, **parameters: Number) -> np.ndarray:
    """Compute one descriptor of one image of mode "RGB" and any size.

    Returns
    -------
    ndarray of shape (n_features,), float32
        Finite for every image. Its length depends on the parameters only.

    Raises
    ------
    UsageError
        As `resolve` does, for parameters that do not fit each other, and for an image of another mode.

    Examples
    --------
    >>> compute("pixels", Image.new("RGB", (500, 375), "red"), size=1)
    array([1., 0., 0.], dtype=float32)
    """
    values = resolve(name, **parameters)
    if image.mode != "RGB":
        raise UsageError(f"descriptor {name!r}: expected an image of mode 'RGB', got {image.mode!r}.")
    return np.asarray(_named(name).function(image, **values), dtype=np.float32)


def n_features(name: str, /, **parameters: Number) -> int:
    """Count a descriptor's features, by computing it on a blank pixel: it cannot disagree with `compute`.

    Raises
    ------
    UsageError
        As `compute` does.

    Examples
    --------
    >>> n_features("hog"), n_features("color_histogram", grid=1)
    (1764, 128)
    """
    return compute(name, Image.new("RGB", (1, 1)), **parameters).size


def _describes(*, version: int) -> Callable[[Callable[..., np.ndarray]], Callable[..., np.ndarray]]:
    """Make a function a descriptor under its own name; its signature and docstring say the rest."""

    def register(function: Callable[..., np.ndarray]) -> Callable[..., np.ndarray]:
        signature = inspect.signature(function).parameters.values()
        _descriptors[function.__name__] = Descriptor(
            name=function.__name__,
            function=function,
            parameters=MappingProxyType({p.name: p.default for p in signature if p.kind is p.KEYWORD_ONLY}),
            version=version,
            summary=(inspect.getdoc(function) or "").partition("\n")[0],
        )
        return function

    return register


@_describes(version=1)
def hog(
    image: Image.Image, *, size: int = 128, orientations: int = 9, cell: int = 16, block: int = 2
) -> np.ndarray:
    """Histograms of oriented gradients: where edges lie and which way they run.

    The gradient of the strongest colour channel votes for its unsigned orientation in cells of `cell` pixels;
    overlapping blocks of `block` x `block` cells are normalised by L2-Hys (Dalal and Triggs, "Histograms of
    oriented gradients for human detection", CVPR 2005).

    Returns
    -------
    ndarray of shape ((size / cell - block + 1)^2 * block^2 * orientations,)
        In [0, 1], in the order (block row, block column, cell row, cell column, orientation).
    """
    from skimage import feature

    _require(size % cell == 0, "hog", "cell", cell, f"a divisor of size={size}")
    _require(block <= size // cell, "hog", "block", block, f"at most the {size // cell} cells of a side")
    _require_affordable("hog", (size // cell * block) ** 2 * orientations)
    return np.asarray(
        feature.hog(
            np.asarray(_square(image, size)),
            orientations=orientations,
            pixels_per_cell=(cell, cell),
            cells_per_block=(block, block),
            block_norm="L2-Hys",
            channel_axis=-1,
        )
    )


@_describes(version=1)
def lbp(image: Image.Image, *, size: int = 128, radii: int = 3, grid: int = 2) -> np.ndarray:
    """Histograms of uniform local binary patterns: fine texture, whatever the brightness.

    Each pixel's grey value is compared with 8r points on circles of radius r = 1, ..., `radii` pixels; the
    rotation invariant uniform codes are counted in `grid` x `grid` cells (Ojala, Pietikainen and Maenpaa,
    "Multiresolution gray-scale and rotation invariant texture classification with local binary patterns",
    IEEE TPAMI 24(7), 2002).

    Returns
    -------
    ndarray of shape (grid^2 * sum of (8r + 2) over the radii,)
        In [0, 1], square roots of shares, in the order (radius, cell row, cell column, code).
    """
    from skimage import feature

    _require(size % grid == 0, "lbp", "grid", grid, f"a divisor of size={size}")
    _require(radii < size, "lbp", "radii", radii, f"less than size={size}")
    _require_affordable("lbp", (size * radii) ** 2)
    # Beyond its border skimage sees black, which would give dark and bright pictures different codes there.
    grey = np.pad(np.asarray(_square(image, size).convert("L")), radii, mode="reflect")
    histograms = []
    for radius in range(1, radii + 1):
        codes = feature.local_binary_pattern(grey, 8 * radius, radius, method="uniform")
        inner = codes[radii:-radii, radii:-radii].astype(np.intp)
        histograms.append(_histograms(inner, 8 * radius + 2, grid).ravel())
    return np.concatenate(histograms)


@_describes(version=1)
def color_histogram(
    image: Image.Image, *, size: int = 128, hue: int = 8, saturation: int = 4, value: int = 4, grid: int = 2
) -> np.ndarray:
    """Joint histograms of hue, saturation and value: which colours are where.

    The three channels are cut into `hue`, `saturation` and `value` equal ranges and counted together in
    `grid` x `grid` cells (Swain and Ballard, "Color indexing", IJCV 7(1), 1991, there with other axes).

    Returns
    -------
    ndarray of shape (grid^2 * hue * saturation * value,)
        In [0, 1], square roots of shares, in the order (cell row, cell column, hue, saturation, value). Hue
        starts at red and runs over green and blue.
    """
    from skimage import color

    _require(size % grid == 0, "color_histogram", "grid", grid, f"a divisor of size={size}")
    bins = (hue, saturation, value)
    n_bins = math.prod(bins)
    _require(n_bins <= 65536, "color_histogram", "hue * saturation * value", n_bins, "at most 65536 bins")
    _require_affordable("color_histogram", grid**2 * n_bins)
    channels = color.rgb2hsv(np.asarray(_square(image, size)))
    # Saturation and value reach 1.0 itself, which belongs to the last bin.
    levels = np.minimum((channels * bins).astype(np.intp), np.subtract(bins, 1))
    codes = np.ravel_multi_index(tuple(np.moveaxis(levels, -1, 0)), bins)
    return _histograms(codes, n_bins, grid).ravel()


_HARALICK = (
    "contrast",
    "dissimilarity",
    "homogeneity",
    "ASM",
    "energy",
    "correlation",
    "mean",
    "variance",
    "entropy",
)


@_describes(version=1)
def glcm(
    image: Image.Image, *, size: int = 128, levels: int = 32, distances: int = 3, angles: int = 4
) -> np.ndarray:
    """Haralick statistics of grey level co-occurrence: coarseness, contrast and regularity of texture.

    The grey image is cut into `levels` equal ranges; symmetric co-occurrence matrices at the distances 1, 3,
    5, ... pixels and at `angles` directions over half a turn are each summed up by contrast, dissimilarity,
    homogeneity, angular second moment, its root (energy), correlation, mean, variance and entropy (Haralick,
    Shanmugam and Dinstein, "Textural features for image classification", IEEE SMC 3(6), 1973).

    Returns
    -------
    ndarray of shape (9 * distances * angles,)
        In the order (statistic, distance, angle). Homogeneity, moment and energy in [0, 1], correlation in
        [-1, 1] (1 where nothing varies), entropy in nats, the rest in levels or their squares, from 0.
    """
    from skimage import feature

    _require(2 <= levels <= 256, "glcm", "levels", levels, "from 2 to 256")
    _require(2 * distances - 1 < size, "glcm", "distances", distances, f"at most {size // 2} for size={size}")
    _require_affordable("glcm", max(size, levels) ** 2 * distances * angles)
    grey = np.asarray(_square(image, size).convert("L"), dtype=np.uint16) * levels // 256
    matrices = feature.graycomatrix(
        grey.astype(np.uint8),
        # Odd, because offsets are rounded: a diagonal step of 2 is the pixel that a diagonal step of 1 is.
        distances=range(1, 2 * distances, 2),
        angles=[math.pi * turn / angles for turn in range(angles)],
        levels=levels,
        symmetric=True,
        normed=True,
    )
    return np.concatenate([feature.graycoprops(matrices, statistic).ravel() for statistic in _HARALICK])


@_describes(version=1)
def gabor(
    image: Image.Image,
    *,
    size: int = 128,
    frequency: float = 0.35,
    scales: int = 4,
    orientations: int = 6,
    grid: int = 2,
) -> np.ndarray:
    """Gabor energies: how strong stripes of each width and direction are.

    The grey image, less its mean, passes one-octave Gabor filters at `frequency` cycles per pixel and at each
    of the `scales - 1` octaves below, in `orientations` directions over half a turn from upright stripes; the
    magnitude's mean and standard deviation are taken in `grid` x `grid` cells (Jain and Farrokhnia,
    "Unsupervised texture segmentation using Gabor filters", Pattern Recognition 24(12), 1991).

    Returns
    -------
    ndarray of shape (2 * scales * orientations * grid^2,)
        In [0, 1], in the order (mean then deviation, scale, orientation, cell row, cell column).
    """
    _require(size % grid == 0, "gabor", "grid", grid, f"a divisor of size={size}")
    _require(frequency <= 0.5, "gabor", "frequency", frequency, "at most 0.5 cycles per pixel")
    periods = size * frequency / 2 ** (scales - 1)
    _require(periods >= 1, "gabor", "scales", scales, f"few enough for one whole period in size={size}")
    _require_affordable("gabor", 2 * size**2 * scales * orientations)  # the filters reach beyond the picture
    grey = np.asarray(_square(image, size).convert("L"), dtype=np.float32) / 255
    grey -= np.mean(grey, dtype=np.float64)
    margin, filters = gabor_bank(size, frequency, scales, orientations)
    # Mirrored beyond the border: the transform is periodic and would see the opposite side there.
    padded = np.pad(grey, (margin, filters.shape[-1] - size - margin), mode="reflect")
    spectrum = np.fft.fft2(padded)
    inner = slice(margin, margin + size)
    # One filter at a time stays in the processor's cache and is faster than the whole bank at once.
    energies = np.stack([_cells(np.abs(np.fft.ifft2(spectrum * f)[inner, inner]), grid) for f in filters])
    return np.concatenate([energies.mean(axis=-1).ravel(), energies.std(axis=-1).ravel()])


@_describes(version=1)
def pixels(image: Image.Image, *, size: int = 16) -> np.ndarray:
    """Downsampled raw pixels: the baseline that every other feature should beat.

    Returns
    -------
    ndarray of shape (3 * size^2,)
        In [0, 1], in the order (row, column, red green blue).
    """
    return np.asarray(_square(image, size), dtype=np.float32).ravel() / 255


def _square(image: Image.Image, size: int) -> Image.Image:
    """Scale the largest centred square of an image to `size` x `size` pixels.

    What a backbone's resize and centre crop see. Squashing the whole picture instead would turn its edges
    and stretch its textures by an amount that differs from photo to photo.
    """
    return ImageOps.fit(image, (size, size), method=Image.Resampling.BILINEAR)


def _cells(plane: np.ndarray, grid: int) -> np.ndarray:
    """Cut a square plane into `grid` x `grid` cells: (side, side) to (grid^2, pixels of a cell)."""
    side = plane.shape[0] // grid
    return plane.reshape(grid, side, grid, side).swapaxes(1, 2).reshape(grid * grid, side * side)


def _histograms(codes: np.ndarray, bins: int, grid: int) -> np.ndarray:
    """Count codes in each cell, as square roots of shares: (side, side) to (grid^2, bins).

    With roots, Euclidean distance compares histograms as distributions do (Hellinger), and one large uniform
    area does not drown the rest; linear heads gain most (Arandjelovic and Zisserman, CVPR 2012).
    """
    cells = _cells(codes, grid)
    own_bins = cells + bins * np.arange(len(cells))[:, np.newaxis]
    counts = np.bincount(own_bins.ravel(), minlength=bins * len(cells)).reshape(len(cells), bins)
    roots: np.ndarray = np.sqrt(counts / cells.shape[1])
    return roots


def _named(name: str) -> Descriptor:
    try:
        return DESCRIPTORS[name]
    except KeyError:
        known = ", ".join(DESCRIPTORS)
        raise UsageError(f"unknown descriptor {name!r}; expected one of: {known}.") from None


def _canonical(name: str, parameter: str, value: Any, default: Number) -> Number:
    """Bring a value to its default's type, or say why it cannot be."""
    if isinstance(default, int):
        integral = isinstance(value, numbers.Integral) and not isinstance(value, bool)
        valid = integral and 1 <= value <= _LARGEST_INTEGER
        _require(valid, name, parameter, value, f"an integer from 1 to {_LARGEST_INTEGER}")
        return int(value)
    real = isinstance(value, numbers.Real) and not isinstance(value, bool)
    _require(real and 0 < value < math.inf, name, parameter, value, "a positive number")
    return float(value)


def _require_affordable(name: str, work: int) -> None:
    """Refuse what would take gigabytes or many seconds a picture; a model that somebody else made may ask for it."""
    if work > _LARGEST_WORK:
        raise UsageError(
            f"descriptor {name!r}: these parameters take {work:,} numbers for one picture, expected at most "
            f"{_LARGEST_WORK:,}. Make them smaller."
        )


def _require(valid: bool, name: str, parameter: str, value: object, expected: str) -> None:
    if not valid:
        raise UsageError(f"descriptor {name!r}, parameter {parameter!r}: expected {expected}, got {value!r}.")
