"""Tells the masks of a segmentation set from its pictures, by the names of folders and files.

    images/x.jpg, masks/x.png              folders beside each other, at any depth
    <Class>/images/x.png, <Class>/masks/x.png
    <Class>/x.png, <Class>/x_mask.png      beside the picture itself

A mask labels pixels and is no picture of a class. Only one that has a picture of its own is taken
for a mask: a class may be called mask.
"""

import re
from collections.abc import Sequence
from functools import cache
from typing import Literal

from weighin.file_names import MASKS, SPLIT_WORDS, words_in

PICTURES = {
    *("image", "images", "img", "imgs", "photo", "photos", "picture", "pictures"),
    *("frame", "frames", "rgb", "jpg", "jpeg", "png", "jpegimages", "pngimages"),
}
# of files; a mask is of a format that keeps its values
OWN_MASK = re.compile(
    r"[_-](masks?|gt|seg|segmentation)([_-]?\d+)?(?=\.(png|bmp|gif|tiff?)$)", re.I
)


@cache
def folder_kind(name: str) -> Literal["pictures", "masks", ""]:
    """Return what a folder of a segmentation set holds, by its name; empty if it names neither."""
    words = {*words_in(name)}
    if not words <= SPLIT_WORDS.keys() | PICTURES | MASKS:
        return ""
    return "masks" if words & MASKS else "pictures" if words else ""


def masks_of(names: Sequence[str]) -> set[str]:
    """Return those of the files `names` that are masks of others."""
    folders = {name.rpartition("/")[0] for name in names}
    apart = {folder: places[0] for folder in folders if (places := _above(folder, "masks"))}
    masks: dict[str, set[tuple[str, str]]] = {}  # a name, and the pictures that it may be of
    for name in names:
        folder, _, file = name.rpartition("/")
        own = OWN_MASK.sub("", file)
        if folder in apart:
            masks[name] = {(apart[folder], _stem(file)), (apart[folder], _stem(own))}
        if own != file:
            masks.setdefault(name, set()).add((f"{folder}/", _stem(own)))
    pictures: set[tuple[str, str]] = set()
    for name in names if masks else ():
        folder, _, file = name.rpartition("/")
        if folder not in apart:
            places = [f"{folder}/", *_above(folder, "pictures")]
            pictures |= {(place, _stem(file)) for place in places}
    return {name for name, keys in masks.items() if keys & pictures}


@cache
def _above(folder: str, kind: str) -> list[str]:
    """Return where the folders of a kind lie that `folder` is one of, or lies in."""
    parts = folder.split("/")
    return ["/".join(parts[:at]) for at, part in enumerate(parts) if folder_kind(part) == kind]


def _stem(file: str) -> str:
    return file.rpartition(".")[0] or file
