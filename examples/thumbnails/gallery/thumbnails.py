"""Making a thumbnail: plain Pillow, without a server or a channel layer."""

from io import BytesIO

from django.core.files.base import ContentFile
from django.core.files.storage import default_storage
from PIL import Image, ImageOps

#: The longer edge, in pixels.
SIZE = 320
#: The largest number of pixels of an upload. A small file can hold many pixels, and all are held in memory.
MOST_PIXELS = 50_000_000


class NoPictureError(ValueError):
    """Pillow cannot read the upload as a picture."""


def make_thumbnail(original: str, thumbnail: str) -> None:
    """Read an original, and store its thumbnail. A second call stores the same file again.

    Raises:
        NoPictureError: the original is not a picture, or has so many pixels that it may be an attack.
    """
    try:
        with default_storage.open(original) as file, Image.open(file) as image:
            if image.width * image.height > MOST_PIXELS:
                raise ValueError(f"more than {MOST_PIXELS:,} pixels")
            image.draft("RGB", (2 * SIZE, 2 * SIZE))  # a JPEG need not be decoded in full
            upright = ImageOps.exif_transpose(image).convert("RGBA")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise NoPictureError(f"{type(error).__name__}: {error}") from error
    upright.thumbnail((SIZE, SIZE))
    data = BytesIO()
    upright.save(data, "WEBP", quality=80)
    default_storage.delete(thumbnail)
    default_storage.save(thumbnail, ContentFile(data.getvalue()))
