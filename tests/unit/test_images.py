import io
import random
import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from thinking_rl.model.images import KimiVLImageProcessor, fit, open_image, stack_patches


def noise(width, height, mode="RGB", seed=0):
    bands = len(Image.new(mode, (1, 1)).getbands())
    shape = (height, width, bands) if bands > 1 else (height, width)
    values = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    return Image.fromarray(values, mode)


def encoded(image, kind="PNG", **options):
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


@pytest.mark.parametrize(
    ("size", "limit", "shrunk", "padded", "tokens"),
    [
        ((100, 100), 4096, (100, 100), (112, 112), 16),
        ((224, 224), 4096, (224, 224), (224, 224), 64),
        ((896, 896), 4096, (896, 896), (896, 896), 1024),
        ((1792, 1792), 16384, (1792, 1792), (1792, 1792), 4096),
        ((1792, 1792), 4096, (896, 896), (896, 896), 1024),
        # 17 x 11 patches at 64: padding goes beyond the limit, to 80 patches
        ((240, 160), 64, (140, 93), (140, 112), 20),
        ((238, 158), 64, (139, 92), (140, 112), 20),
        ((1, 1), 4096, (1, 1), (28, 28), 1),
        ((28, 29), 4096, (28, 29), (28, 56), 2),
    ],
)
def test_size_rule(size, limit, shrunk, padded, tokens):
    assert fit(size[0], size[1], limit) == (*shrunk, *padded)
    processor = KimiVLImageProcessor(in_token_limit=limit)
    assert processor.num_image_tokens(*size) == tokens
    patches = processor.patches(Image.new("RGB", size))
    assert patches.num_tokens == tokens
    assert patches.grid_hw == (padded[1] // 14, padded[0] // 14)
    assert patches.pixel_values.shape == (tokens * 4, 3, 14, 14)


def sizes(count, largest=2500):
    draw = random.Random(1)
    return [(draw.randint(1, largest), draw.randint(1, largest)) for _ in range(count)]


def patches_by_hand(image, limit):
    """The rule again, with numpy and loops; only the interpolation is PIL's in both."""
    width, height = image.size
    across, down = width // 14, height // 14
    if across * down > limit:
        factor = (limit / (across * down)) ** 0.5
        width, height = int(width * factor), int(height * factor)
        image = image.resize((width, height), Image.Resampling.BICUBIC)
    canvas = np.zeros((height + -height % 28, width + -width % 28, 3), dtype=np.float32)
    canvas[:height, :width] = np.asarray(image)
    canvas = canvas / 127.5 - 1
    rows, columns = canvas.shape[0] // 14, canvas.shape[1] // 14
    cut = [
        canvas[row * 14 : row * 14 + 14, column * 14 : column * 14 + 14].transpose(2, 0, 1)
        for row in range(rows)
        for column in range(columns)
    ]
    return (rows, columns), np.stack(cut)


@pytest.mark.parametrize("limit", [64, 4096])
@pytest.mark.parametrize("size", sizes(8, 600))
def test_patches(size, limit):
    image = noise(*size)
    grid, values = patches_by_hand(image, limit)
    patches = KimiVLImageProcessor(in_token_limit=limit).patches(image)
    assert patches.grid_hw == grid
    assert patches.pixels.dtype == np.uint8
    assert patches.pixel_values.dtype == torch.float32
    np.testing.assert_allclose(patches.pixel_values.numpy(), values, atol=1e-6)


@pytest.mark.parametrize(
    ("size", "limit"),
    [((7168, 14), 4096), ((14, 7150), 4096), ((100000, 10), 4096), ((14000, 14), 4)],
)
def test_pictures_too_long_for_the_vision_encoder_are_refused(size, limit):
    with pytest.raises(ValueError, match=f"{size[0]} x {size[1]} pixels"):
        fit(size[0], size[1], limit)


def test_longest_picture():
    assert fit(7140, 14, 4096).padded_width == 7140


def test_without_padding_the_middle_is_kept():
    processor = KimiVLImageProcessor(pad_input=False)
    image = noise(90, 61)
    patches = processor.patches(image)
    assert patches.grid_hw == (4, 6)
    expected = KimiVLImageProcessor().patches(image.crop((3, 2, 87, 58)))
    assert torch.equal(patches.pixel_values, expected.pixel_values)
    with pytest.raises(ValueError, match="27 x 61"):
        processor.patches(noise(27, 61))


def test_patches_are_normalised_by_channel():
    processor = KimiVLImageProcessor(image_mean=[0.4, 0.5, 0.6], image_std=[0.2, 0.3, 0.4])
    values = processor.patches(Image.new("RGB", (28, 28), (51, 102, 255))).pixel_values
    for channel, (share, mean, std) in enumerate([(0.2, 0.4, 0.2), (0.4, 0.5, 0.3), (1, 0.6, 0.4)]):
        expected = torch.full((4, 14, 14), (share - mean) / std)
        torch.testing.assert_close(values[:, channel], expected, atol=1e-6, rtol=0)


def test_hash_tells_content_and_shape():
    processor = KimiVLImageProcessor()
    key = processor.patches(noise(56, 28)).hash
    assert key == processor.patches(noise(56, 28)).hash
    assert key != processor.patches(noise(56, 28, seed=1)).hash
    black = [processor.patches(Image.new("RGB", size)).hash for size in ((56, 28), (28, 56))]
    assert black[0] != black[1]


def test_batches():
    processor = KimiVLImageProcessor()
    images = [noise(30, 30), noise(28, 28)]
    batch = processor(images, return_tensors="pt")
    assert batch["image_grid_hws"].tolist() == [[4, 4], [2, 2]]
    stacked = stack_patches([processor.patches(image) for image in images])
    assert torch.equal(batch["pixel_values"], stacked["pixel_values"])
    assert batch["pixel_values"].shape == (20, 3, 14, 14)
    assert processor(images[0])["pixel_values"].shape == (16, 3, 14, 14)


def test_settings_are_saved(tmp_path):
    processor = KimiVLImageProcessor(
        in_token_limit=64, pad_input=False, image_mean=[0.4, 0.5, 0.6], image_std=[0.2, 0.3, 0.4]
    )
    processor.save_pretrained(tmp_path)
    again = KimiVLImageProcessor.from_pretrained(tmp_path)
    assert again.to_dict() == processor.to_dict()
    assert again.num_image_tokens(500, 500) == processor.num_image_tokens(500, 500)


RED = (255, 0, 0)


@pytest.mark.parametrize(
    ("image", "pixels"),
    [
        (Image.new("RGB", (2, 1), RED), [RED, RED]),
        (Image.new("RGBA", (1, 1), (*RED, 0)), [(255, 255, 255)]),
        (Image.new("RGBA", (1, 1), (*RED, 255)), [RED]),
        (Image.new("LA", (1, 1), (0, 0)), [(255, 255, 255)]),
        (Image.new("L", (1, 1), 7), [(7, 7, 7)]),
        (Image.fromarray(np.array([[0x1234]], dtype=np.uint16)), [(0x12, 0x12, 0x12)]),
        (Image.new("1", (1, 1), 1), [(255, 255, 255)]),
    ],
    ids=["RGB", "transparent", "opaque", "grey and alpha", "grey", "16 bit", "1 bit"],
)
def test_pictures_become_rgb(tmp_path, image, pixels):
    file = tmp_path / "picture.png"
    image.save(file)
    for source in (file, file.read_bytes()):
        opened = open_image(source)
        assert opened.mode == "RGB"
        assert np.asarray(opened).reshape(-1, 3).tolist() == [list(pixel) for pixel in pixels]


def test_palette_with_a_transparent_colour_is_put_on_white():
    image = Image.new("P", (2, 1))
    image.putpalette([*RED, 0, 0, 255])
    image.putpixel((1, 0), 1)
    opened = open_image(encoded(image, transparency=0))
    assert [opened.getpixel((x, 0)) for x in (0, 1)] == [(255, 255, 255), (0, 0, 255)]


def test_exif_rotation_is_left_alone():
    exif = Image.Exif()
    exif[0x0112] = 6
    assert open_image(encoded(noise(30, 20), "JPEG", exif=exif)).size == (30, 20)


def png_header(width, height):
    """A PNG that claims a size and holds no pixels."""

    def chunk(kind, data):
        check = zlib.crc32(kind + data)
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", check)

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"")


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (png_header(20000, 10000), "too large|megapixels"),
        (png_header(12000, 10000), "120 megapixels, more than 100"),
        (png_header(100, 100), "not a readable image"),
        (b"certainly not an image", "not a readable image"),
        (b"", "not a readable image"),
        (encoded(noise(64, 64))[:2000], "not a readable image"),
        (encoded(noise(64, 64), "JPEG")[:900], "not a readable image"),
    ],
    ids=["200 MP", "120 MP", "no pixels", "text", "empty", "cut PNG", "cut JPEG"],
)
def test_bad_pictures_are_refused_by_name(tmp_path, content, message):
    file = tmp_path / "bad.png"
    file.write_bytes(content)
    with pytest.raises(ValueError, match=f"bad.png: .*({message})"):
        open_image(file)
    with pytest.raises(ValueError, match=f"{len(content)} bytes of image data: .*({message})"):
        open_image(content)


def test_missing_pictures_are_named(tmp_path):
    with pytest.raises(ValueError, match=r"nowhere.png: there is no such image file"):
        open_image(tmp_path / "nowhere.png")


def test_size_limit_is_the_callers():
    with pytest.raises(ValueError, match="shrink the picture"):
        open_image(encoded(noise(100, 100)), max_megapixels=0.009)
    assert open_image(encoded(noise(100, 100)), max_megapixels=0.01).size == (100, 100)
