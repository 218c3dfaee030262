"""From a decoded picture to a network's input: resize, centre crop and scale, as the weights were trained with."""

import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from PIL import Image

from featx.errors import UsageError

if TYPE_CHECKING:
    import torch

__all__ = ["Interpolation", "Preprocessing", "resize_and_crop"]

Interpolation = Literal["bilinear", "bicubic"]

_RESAMPLING = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}

_FILTER_RADIUS = 2
"""Pixels, times the scale, that the wider of the filters reaches to either side."""

_MAX_ASPECT = 16
"""Above this ratio of the sides only the pixels that are kept are computed: the whole strip could fill the memory."""


@dataclass(frozen=True)
class Preprocessing:
    """The geometry and scale that a network's weights expect.

    Attributes
    ----------
    resize : int
        Length in pixels of the shorter side after resizing.
    crop : int
        Side of the central square that the network sees, in pixels.
    interpolation : {"bilinear", "bicubic"}
        Resampling filter; always antialiased.
    mean, std : tuple of three float
        Subtracted from, and divided into, channel values in 0..1, in the order red, green, blue.
    squash : bool
        Whether both sides are resized to `resize`, giving up the aspect ratio.
    """

    resize: int
    crop: int
    interpolation: Interpolation = "bilinear"
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    squash: bool = False

    def __post_init__(self) -> None:
        if self.interpolation not in _RESAMPLING:
            raise UsageError(
                f"interpolation: expected one of {', '.join(_RESAMPLING)}, got {self.interpolation!r}."
            )
        for name, size in (("resize", self.resize), ("crop", self.crop)):
            if not isinstance(size, int) or size < 1:
                raise UsageError(f"{name}: expected a whole number of at least 1 pixel, got {size!r}.")
        for name, values in (("mean", self.mean), ("std", self.std)):
            if len(values) != 3 or (name == "std" and not all(value > 0 for value in values)):
                raise UsageError(
                    f"{name}: expected three numbers, for red, green and blue of 0 to 1 (std above 0), got {values!r}."
                )

    @property
    def fields(self) -> dict[str, Any]:
        """All fields as JSON values, for the identity."""
        return {name: list(v) if isinstance(v, tuple) else v for name, v in asdict(self).items()}

    def with_size(self, crop: int) -> "Preprocessing":
        """Return the same with another crop, the resize scaled along.

        Examples
        --------
        >>> Preprocessing(resize=256, crop=224).with_size(112).resize
        128
        """
        return Preprocessing(
            **{**asdict(self), "crop": crop, "resize": round(self.resize * crop / self.crop)}
        )

    @property
    def geometry(self) -> tuple[object, ...]:
        """What `apply` depends on: where it is equal, so are its results."""
        return (self.resize, self.crop, self.interpolation, self.squash)

    def apply(self, image: "Image.Image | torch.Tensor") -> np.ndarray:
        """Resize and crop; the scale to mean and std is left to the device that runs the network.

        Parameters
        ----------
        image : PIL image of mode RGB, or uint8 tensor of shape (3, height, width)
            Decoded pixels: a PIL image is resized by Pillow, a tensor by torchvision.

        Returns
        -------
        ndarray of shape (3, crop, crop), uint8
            Channel values in 0..255.
        """
        if isinstance(image, Image.Image):
            pixels = np.asarray(self._apply_pillow(image))
            return np.ascontiguousarray(pixels.transpose(2, 0, 1))
        height, width = image.shape[-2:]
        if max(height, width) > _MAX_ASPECT * min(height, width):
            return self.apply(Image.fromarray(image.permute(1, 2, 0).contiguous().cpu().numpy()))
        from torchvision.transforms import InterpolationMode
        from torchvision.transforms.v2 import functional

        size = [self.resize, self.resize] if self.squash else [self.resize]
        resized = functional.resize(
            image, size, interpolation=InterpolationMode(self.interpolation), antialias=True
        )
        cropped: np.ndarray = (
            functional.center_crop(resized, [self.crop, self.crop]).contiguous().cpu().numpy()
        )
        return cropped

    def _apply_pillow(self, image: Image.Image) -> Image.Image:
        if self.squash:
            resized = image.resize((self.resize, self.resize), _RESAMPLING[self.interpolation])
            return _centre(resized, self.crop)
        return resize_and_crop(image, resize=self.resize, crop=self.crop, interpolation=self.interpolation)


def resize_and_crop(
    image: Image.Image, *, resize: int, crop: int, interpolation: Interpolation
) -> Image.Image:
    """Resize the shorter side and cut the central square.

    The result equals torchvision's ``Resize`` followed by ``CenterCrop`` on PIL images, byte for byte. Of a picture
    more than 16 times as long as wide only the window is computed, first its width, then its height: a channel value
    may differ by one, and by more where Pillow would choose the other order and a bicubic overshoot is clipped.

    Parameters
    ----------
    image : PIL image of mode RGB
        Any size.
    resize : int
        Length of the shorter side after resizing, in pixels.
    crop : int
        Side of the square, in pixels; what lies outside the resized image is black.
    interpolation : {"bilinear", "bicubic"}
        Pillow's filter of that name.

    Returns
    -------
    PIL image of mode RGB, crop x crop pixels

    Examples
    --------
    >>> resize_and_crop(Image.new("RGB", (640, 480)), resize=256, crop=224, interpolation="bilinear").size
    (224, 224)
    """
    width, height = image.size
    shorter, longer = sorted(image.size)
    new_longer = int(resize * longer / shorter)
    resized = (resize, new_longer) if width <= height else (new_longer, resize)
    if longer <= _MAX_ASPECT * shorter:
        return _centre(image.resize(resized, _RESAMPLING[interpolation]), crop)
    window = (min(crop, resized[0]), min(crop, resized[1]))
    return _centre(_resize_window(image, resized, window, interpolation), crop)


def _resize_window(
    image: Image.Image, resized: tuple[int, int], window: tuple[int, int], interpolation: Interpolation
) -> Image.Image:
    # Pillow keeps a box in single precision, which is why this is not used where the exact resize fits.
    kept, boxes = [], []
    for length, new_length, new_window in zip(image.size, resized, window, strict=True):
        scale = length / new_length
        start = round((new_length - new_window) / 2.0)
        first, last = start * scale, min((start + new_window) * scale, length)
        reach = (
            _FILTER_RADIUS * max(scale, 1.0) + 1
        )  # pixels outside the window that its edge is computed from
        low = max(0, math.floor(first - reach))
        kept.append((low, min(length, math.ceil(last + reach))))
        boxes.append((first - low, last - low))
    part = image.crop((kept[0][0], kept[1][0], kept[0][1], kept[1][1]))
    # Pillow clips between its two passes and may swap them for a window, but not for the whole: width, then height.
    filter_ = _RESAMPLING[interpolation]
    part = part.resize((window[0], part.height), filter_, box=(boxes[0][0], 0, boxes[0][1], part.height))
    return part.resize(window, filter_, box=(0, boxes[1][0], part.width, boxes[1][1]))


def _centre(image: Image.Image, crop: int) -> Image.Image:
    if crop > min(image.size):
        canvas = Image.new("RGB", (max(crop, image.width), max(crop, image.height)))
        canvas.paste(image, ((canvas.width - image.width) // 2, (canvas.height - image.height) // 2))
        image = canvas
    left, top = round((image.width - crop) / 2.0), round((image.height - crop) / 2.0)
    return image.crop((left, top, left + crop, top + crop))
