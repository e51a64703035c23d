"""Folders of made-up labelled pictures, in every layout."""

import numpy as np
from PIL import Image

SIDE = 32


def write_picture(path, values):
    """A PNG of (H, W) class numbers or (H, W, 3) colours."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(values, np.uint8)).save(path)


def noise(number, brightness):
    """(SIDE, SIDE, 3) pixels around a brightness, other ones for every number."""
    rng = np.random.default_rng(number)
    return np.clip(rng.normal(brightness, 15, (SIDE, SIDE, 3)), 0, 255)


def write_classes(folder, count=10):
    """Dark and bright pictures, in a folder per class."""
    for name, brightness in (("dark", 60), ("light", 190)):
        for i in range(count):
            write_picture(folder / name / f"{i}.png", noise(i, brightness))
    return folder


def write_segments(folder, count=10, numbers=(0, 1)):
    """Pictures whose left half is dark and whose right half is bright, with class numbers."""
    for i in range(count):
        left, right = noise(i, 60), noise(i, 190)
        half = SIDE // 2
        write_picture(folder / "img" / f"{i}.png", np.hstack([left[:, :half], right[:, half:]]))
        write_picture(folder / "label" / f"{i}.png", np.repeat([numbers], half, 1).repeat(SIDE, 0))
    return folder


def write_changes(folder, count=10):
    """Pairs of pictures of which every other one grows bright."""
    for i in range(count):
        after = 190 if i % 2 else 60
        write_picture(folder / "A" / f"{i}.png", noise(i, 60))
        write_picture(folder / "B" / f"{i}.png", noise(i + 100, after))
        write_picture(folder / "label" / f"{i}.png", np.full((SIDE, SIDE), 255 * (i % 2)))
    return folder


def write_values(folder, count=10):
    """Pictures with their brightness in a table."""
    rows = ["file,brightness"]
    for i in range(count):
        write_picture(folder / f"{i}.png", noise(i, 40 + 15 * i))
        rows.append(f"{i}.png,{40 + 15 * i}")
    (folder / "values.csv").write_text("\n".join(rows) + "\n")
    return folder
