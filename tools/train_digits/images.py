"""From a PNG as a client sends it to the model's input, as preprocessor_config.json says.

The same steps as Hugging Face's image processors, in the same order: RGB, resize, crop, rescale,
normalise. The resize is Pillow's, which averages over the whole footprint when it makes an image
smaller, and rounds to bytes.
"""

import io

import numpy
import PIL.Image


def decode(png: bytes) -> PIL.Image.Image:
    return PIL.Image.open(io.BytesIO(png))


def encode(image: PIL.Image.Image) -> bytes:
    out = io.BytesIO()
    image.save(out, format="PNG", optimize=True)
    return out.getvalue()


def center_crop(image: PIL.Image.Image, size: dict) -> PIL.Image.Image:
    left, top = (image.width - size["width"]) // 2, (image.height - size["height"]) // 2
    return image.crop((left, top, left + size["width"], top + size["height"]))


def preprocess(image: PIL.Image.Image, config: dict) -> numpy.ndarray:
    """Any size and mode -> [3, height, width], float32."""
    image = image.convert("RGB")
    if config["do_resize"]:
        size = (config["size"]["width"], config["size"]["height"])
        image = image.resize(size, resample=PIL.Image.Resampling(config["resample"]))
    if config["do_center_crop"]:
        image = center_crop(image, config["crop_size"])
    x = numpy.asarray(image, dtype=numpy.float32)
    if config["do_rescale"]:
        x = x * numpy.float32(config["rescale_factor"])
    if config["do_normalize"]:
        x = (x - numpy.float32(config["image_mean"])) / numpy.float32(config["image_std"])
    return x.transpose(2, 0, 1)
