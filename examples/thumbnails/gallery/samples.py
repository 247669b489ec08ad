"""Samples, so that you can see everything that may happen without a picture at hand."""

import random
from io import BytesIO
from math import sin

from PIL import Image, ImageColor, ImageDraw, ImageFilter

from .models import Picture

WORDS = (("Quiet", "Early", "Amber", "Distant", "Velvet"), ("Harbour", "Meadow", "Morning", "Ridge", "Lagoon"))
SIZE = (900, 675)

#: By kind: how the worker fails.
TROUBLES = {
    "picture": Picture.Trouble.NONE,
    "text": Picture.Trouble.NONE,
    "twice": Picture.Trouble.TWICE,
    "always": Picture.Trouble.ALWAYS,
}


class SampleTroubleError(Exception):
    """The failure that a sample asked for."""


def have_trouble(picture: Picture, attempt: int) -> None:
    """Fail if the picture is a sample that is to fail in this attempt.

    Raises:
        SampleTroubleError: it is.
    """
    if picture.trouble == Picture.Trouble.ALWAYS or (picture.trouble == Picture.Trouble.TWICE and attempt <= 2):
        raise SampleTroubleError("the disk is full, or so this sample pretends")


def make_sample(kind: str) -> tuple[str, bytes]:
    """A file's name and content."""
    if kind == "text":
        return "shopping list.txt", b"milk, bread, a new lens\n"
    name = " ".join(map(random.choice, WORDS))
    return f"{name}.jpg", paint()


#: The colours of the sky from the top to the horizon, of the sun, and of the hills from the first to the last.
PALETTES = (
    ("#f7c59f", "#f2784b", "#fff1d0", "#b05a62", "#3b2a4a"),
    ("#8ec5e8", "#e9f4f7", "#fffbe6", "#6f9bb0", "#1f4055"),
    ("#433d72", "#e58a8a", "#ffe0b5", "#7a5585", "#231f3d"),
    ("#9ad0c2", "#f6ecc9", "#fff8dc", "#6c9a7d", "#1f4a40"),
    ("#f3b7c0", "#fbe7d0", "#fffaf0", "#c08497", "#4f3a54"),
)


def paint() -> bytes:
    """A landscape: a sky, a sun, and hills one behind another."""
    top, horizon, sun, far, near = map(ImageColor.getrgb, random.choice(PALETTES))
    width, height = SIZE
    image = Image.new("RGB", SIZE)
    draw = ImageDraw.Draw(image)
    for row in range(height):
        draw.line([(0, row), (width, row)], fill=between(top, horizon, min(1, 1.6 * row / height)))
    x, y, radius = random.randrange(200, width - 200), random.randrange(130, 260), random.randrange(40, 80)
    draw.ellipse([x - radius, y - radius, x + radius, y + radius], fill=sun)
    for hill in range(4):
        base, shift = height * (0.48 + hill * 0.13), random.uniform(0, 6)
        steps = range(0, width + 10, 10)
        ridge = [(step, base + 38 * sin(step / 160 + shift) + 16 * sin(step / 60 + 2 * shift)) for step in steps]
        draw.polygon([(0, height), *ridge, (width, height)], fill=between(far, near, hill / 3))
    data = BytesIO()
    image.filter(ImageFilter.GaussianBlur(1)).save(data, "JPEG", quality=85)
    return data.getvalue()


def between(one: tuple[int, ...], other: tuple[int, ...], share: float) -> tuple[int, ...]:
    """A colour on the way from one to another."""
    return tuple(round(a + (b - a) * share) for a, b in zip(one, other, strict=True))
