"""The filters of the Gabor descriptor, made once for each set of parameters; the descriptor itself is elsewhere."""

import math
from functools import lru_cache

import numpy as np

__all__ = ["gabor_bank"]


@lru_cache(maxsize=4)
def gabor_bank(size: int, frequency: float, scales: int, orientations: int) -> tuple[int, np.ndarray]:
    """Build the filters, from fine to coarse and, within a scale, by orientation.

    Parameters
    ----------
    size : int
        Side of the square pictures that are filtered, in pixels.
    frequency : float
        Of the finest scale, in cycles per pixel; each scale halves it.
    scales, orientations : int
        How many of each.

    Returns
    -------
    margin : int
        How far the filters reach, in pixels.
    filters : ndarray of shape (scales * orientations, side, side), complex64
        In the frequency domain; a picture is padded to their side.
    """
    from skimage.filters import gabor_kernel

    kernels = [
        gabor_kernel(frequency / 2**scale, theta=math.pi * turn / orientations)
        for scale in range(scales)
        for turn in range(orientations)
    ]
    margin = max(max(kernel.shape) for kernel in kernels) // 2
    side = -(-(size + 2 * margin) // 16) * 16  # a multiple of 16 transforms fast
    filters = np.empty((len(kernels), side, side), dtype=np.complex64)
    for kernel, response in zip(kernels, filters, strict=True):
        rows, columns = kernel.shape
        centred = np.zeros((side, side), dtype=np.complex64)
        centred[:rows, :columns] = kernel
        response[:] = np.fft.fft2(np.roll(centred, (-(rows // 2), -(columns // 2)), axis=(0, 1)))
    filters.flags.writeable = False  # every thread shares them
    return margin, filters
