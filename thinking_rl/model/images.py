"""Pictures to patches: the released checkpoints' rule, on PIL and torch alone.

A picture is never enlarged. One with more than `in_token_limit` whole 14 x 14 patches is shrunk,
then padded at the right and bottom to whole 28 x 28 cells; each cell is one token of the prompt.
"""

from __future__ import annotations

import hashlib
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, TypeAlias

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from transformers import BatchFeature
from transformers.image_processing_utils import BaseImageProcessor

from thinking_rl.types import ImageSource

Pictures: TypeAlias = "Image.Image | Sequence[Pictures]"
"""As transformers gives them to a processor: one, a list, or a list for each text."""
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM")
"""What a picture may be, whatever its file is called: none that another program would draw, as
Ghostscript draws PostScript."""
MAX_SIDE_PATCHES = 512
"""The vision encoder's rotary positions end here."""


def read_image(source: ImageSource) -> bytes:
    """The encoded bytes of a picture.

    Raises:
        ValueError: the file is missing or cannot be read.
    """
    if isinstance(source, bytes):
        return source
    try:
        return Path(source).read_bytes()
    except OSError as error:
        missing = not Path(source).exists()
        reason = "there is no such image file" if missing else f"not a readable image ({error})"
        raise ValueError(f"{source}: {reason}") from error


def open_image(source: ImageSource, max_megapixels: float = 100, name: str = "") -> Image.Image:
    """Decode a picture to RGB; transparent parts become white, EXIF rotation is not applied.

    Args:
        max_megapixels: most pixels, in millions; told from the header, before decoding.
        name: what errors call the picture; by default its file.

    Raises:
        ValueError: it is missing, is no picture, is damaged, or is too large.
    """
    data = read_image(source)
    if not name:
        name = f"{len(data)} bytes of image data" if isinstance(source, bytes) else str(source)
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            megapixels = image.width * image.height / 1e6
            if megapixels <= max_megapixels:
                return to_rgb(image)
    except Image.DecompressionBombError as error:
        raise ValueError(f"{name}: too large a picture ({error})") from error
    except UnidentifiedImageError:
        raise ValueError(
            f"{name}: not a readable image; expected one of {', '.join(FORMATS)}"
        ) from None
    except Exception as error:  # decoders of damaged files raise anything
        raise ValueError(f"{name}: not a readable image ({error})") from error
    raise ValueError(
        f"{name}: {image.width} x {image.height} is {megapixels:.0f} megapixels, "
        f"more than {max_megapixels:g}; shrink the picture"
    )


def to_rgb(image: Image.Image) -> Image.Image:
    """The picture in RGB, on white where it is transparent, 16-bit greys scaled to 8 bits."""
    if image.mode.startswith("I;16"):
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if not image.has_transparency_data:
        return image.convert("RGB")
    image = image.convert("RGBA")
    white = Image.new("RGB", image.size, "white")
    white.paste(image, mask=image.getchannel("A"))
    return white


def flat(images: Pictures) -> list[Image.Image]:
    """The pictures in their order, of one, of a list, or of a list for each text of a batch."""
    if isinstance(images, Image.Image):
        return [images]
    return [picture for one in images for picture in flat(one)]


class Fit(NamedTuple):
    """Sizes in pixels: after shrinking, and after padding (or cropping) to whole cells."""

    width: int
    """Width after shrinking."""
    height: int
    """Height after shrinking."""
    padded_width: int
    """Width in whole cells."""
    padded_height: int
    """Height in whole cells."""


def fit(
    width: int,
    height: int,
    limit: int,
    patch: int = 14,
    merge: Sequence[int] = (2, 2),
    pad: bool = True,
) -> Fit:
    """Sizes that a picture of `width` x `height` pixels goes through.

    `limit`: patches above which it is shrunk; padding can exceed it a little. `merge`: patches of
    a cell, (rows, columns). Without `pad` the picture is cropped to whole cells instead.

    Raises:
        ValueError: the picture is too long or too thin to be represented.
    """
    patches = (width // patch) * (height // patch)
    scale = math.sqrt(limit / patches) if patches > limit else 1.0
    small = int(width * scale), int(height * scale)
    rounding = math.ceil if pad else math.floor
    cells = rounding(small[0] / (patch * merge[1])), rounding(small[1] / (patch * merge[0]))
    padded = cells[0] * patch * merge[1], cells[1] * patch * merge[0]
    if min(*small, *padded) < 1 or max(padded) // patch >= MAX_SIDE_PATCHES:
        raise ValueError(
            f"a picture of {width} x {height} pixels becomes {padded[0]} x {padded[1]} at "
            f"{limit} patches; each side must be 1 to {MAX_SIDE_PATCHES * patch - 1} pixels: "
            "crop it, or change its proportions"
        )
    return Fit(*small, *padded)


@dataclass(frozen=True)
class CutImage:
    """What a prompt has to know of a picture."""

    hash: str
    """SHA-256 that names its patches: of its encoded bytes where an image store has it, else of
    its pixels."""
    grid_hw: tuple[int, int]
    """Patches down and across."""

    @property
    def num_tokens(self) -> int:
        """Placeholders in the prompt: one for 2 x 2 patches."""
        return self.grid_hw[0] * self.grid_hw[1] // 4


@dataclass(frozen=True)
class ImagePatches(CutImage):
    """One picture as the vision encoder takes it, at a byte a value."""

    pixels: np.ndarray
    """[h * w, 3, 14, 14] uint8, row by row."""
    image_mean: tuple[float, ...] = (0.5, 0.5, 0.5)
    """By channel, as a share of 255; taken off when the picture is used."""
    image_std: tuple[float, ...] = (0.5, 0.5, 0.5)
    """By channel, as a share of 255; divided by after that."""

    @property
    def pixel_values(self) -> torch.Tensor:
        """[h * w, 3, 14, 14] float32, normalised; made anew each time."""
        values = torch.from_numpy(self.pixels.astype(np.float32)).div_(255)
        mean, std = (torch.tensor(v).view(3, 1, 1) for v in (self.image_mean, self.image_std))
        return values.sub_(mean).div_(std)


class KimiVLImageProcessor(BaseImageProcessor):
    """Reads and writes `preprocessor_config.json`; the defaults are the checkpoints' values."""

    model_input_names = ["pixel_values", "image_grid_hws"]  # noqa: RUF012

    def __init__(
        self,
        patch_size: int = 14,
        pad_input: bool = True,
        image_mean: Sequence[float] = (0.5, 0.5, 0.5),
        image_std: Sequence[float] = (0.5, 0.5, 0.5),
        in_token_limit: int = 4096,
        merge_kernel_size: Sequence[int] = (2, 2),
        num_pooled_tokens: int = 1024,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.patch_size = patch_size
        self.pad_input = pad_input
        self.image_mean = list(image_mean)
        self.image_std = list(image_std)
        self.in_token_limit = in_token_limit
        self.merge_kernel_size = list(merge_kernel_size)
        self.num_pooled_tokens = num_pooled_tokens

    def fit(self, width: int, height: int) -> Fit:
        """`fit` under this processor's settings."""
        return fit(
            width,
            height,
            self.in_token_limit,
            self.patch_size,
            self.merge_kernel_size,
            self.pad_input,
        )

    def num_image_tokens(self, width: int, height: int) -> int:
        """Placeholders that a picture of this size takes in the prompt."""
        size = self.fit(width, height)
        rows, columns = self.merge_kernel_size
        cell = rows * columns * self.patch_size**2
        return size.padded_width * size.padded_height // cell

    def patches(self, image: Image.Image) -> ImagePatches:
        """Shrink, pad and cut one picture."""
        image = to_rgb(image)
        size = self.fit(image.width, image.height)
        if image.size != (size.width, size.height):
            image = image.resize((size.width, size.height), Image.Resampling.BICUBIC)
        left = top = 0
        if not self.pad_input:
            left = (size.width - size.padded_width) // 2
            top = (size.height - size.padded_height) // 2
        # Cropping beyond the picture fills with black: zero before normalisation.
        image = image.crop((left, top, left + size.padded_width, top + size.padded_height))
        side = self.patch_size
        h, w = size.padded_height // side, size.padded_width // side
        pixels = np.array(image).reshape(h, side, w, side, 3).transpose(0, 2, 4, 1, 3)
        pixels = np.ascontiguousarray(pixels.reshape(h * w, 3, side, side))
        digest = hashlib.sha256(f"{h}x{w}:".encode())
        digest.update(pixels.data)
        mean, std = tuple(self.image_mean), tuple(self.image_std)
        return ImagePatches(digest.hexdigest(), (h, w), pixels, mean, std)

    def preprocess(self, images: Pictures, return_tensors: str | None = None) -> BatchFeature:
        """`pixel_values` [patches of all images, 3, 14, 14] and `image_grid_hws` [images, 2]."""
        batch = stack_patches([self.patches(image) for image in flat(images)])
        return BatchFeature(batch, tensor_type=return_tensors)


def stack_patches(images: Sequence[ImagePatches]) -> dict[str, torch.Tensor]:
    """The model's image inputs: `pixel_values` and `image_grid_hws` (int64); at least one image."""
    return {
        "pixel_values": torch.cat([image.pixel_values for image in images]),
        "image_grid_hws": torch.tensor([image.grid_hw for image in images]),
    }
