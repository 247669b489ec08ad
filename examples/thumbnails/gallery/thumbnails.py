"""Making a thumbnail: plain Pillow, without a server or a channel layer."""

from io import BytesIO
from typing import IO

from django.core.files.base import ContentFile
from django.core.files.storage import default_storage
from PIL import Image, ImageOps, UnidentifiedImageError

#: The longer edge, in pixels.
SIZE = 480
#: The largest number of pixels of an upload. A small file can hold many pixels, and all are held in memory.
MOST_PIXELS = 50_000_000


class NoPictureError(Exception):
    """An upload of which there can be no thumbnail. The text tells the reason to its owner."""


def make_thumbnail(original: str, thumbnail: str) -> None:
    """Read an original, and store its thumbnail. A second call stores the same file again.

    Raises:
        NoPictureError: the original is not a picture, or has so many pixels that it may be an attack.
    """
    with default_storage.open(original) as file:
        upright = _read(file)
    upright.thumbnail((SIZE, SIZE))
    data = BytesIO()
    upright.save(data, "WEBP", quality=80)
    default_storage.delete(thumbnail)
    default_storage.save(thumbnail, ContentFile(data.getvalue()))


def _read(file: IO[bytes]) -> Image.Image:
    try:
        with Image.open(file) as image:
            if image.width * image.height > MOST_PIXELS:
                raise NoPictureError(f"It has more than {MOST_PIXELS // 10**6} megapixels.")
            image.draft("RGB", (2 * SIZE, 2 * SIZE))  # a JPEG need not be decoded in full
            return ImageOps.exif_transpose(image).convert("RGBA")
    except UnidentifiedImageError:
        raise NoPictureError("This is not a picture, or its format is not known.") from None
    except Image.DecompressionBombError:
        raise NoPictureError(f"It has more than {MOST_PIXELS // 10**6} megapixels.") from None
    except (OSError, ValueError, SyntaxError) as error:
        raise NoPictureError(f"The file is damaged: {error}.") from error
