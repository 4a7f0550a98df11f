"""Tells the masks of a segmentation set from its pictures, by the names of folders and files.

    images/x.jpg, masks/x.png              folders beside each other, at any depth
    <Class>/images/x.png, <Class>/lung masks/x.png
    <Class>/x.png, <Class>_mask/x.png      folders beside each other, of which one has the other's
    <Class>/x.png, <Class>/x_mask.png      beside the picture itself; x_lung_mask, mask_x

A mask labels pixels and is no picture of a class. Only one that has a picture of its own is taken
for a mask: a class may be called mask, or with_mask.
"""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import cache
from itertools import accumulate
from typing import Literal

from weighin.file_names import MASKS, SPLIT_WORDS, fold, words_in

PICTURES = {
    *("image", "images", "img", "imgs", "photo", "photos", "picture", "pictures"),
    *("frame", "frames", "rgb", "jpg", "jpeg", "png", "jpegimages", "pngimages"),
}
# what the file of a mask is called beside its picture's name
CALLED = re.compile("mask|superpixel|gt|seg", re.I)
_MASK = r"(?:[^\W\d_]*masks?|superpixels?)"
_COUNT = r"(?:[ _.-]?\d+)?(?=\.\w+$)"
BEHIND = re.compile(rf"[ _.-]+{_MASK}{_COUNT}", re.I)
BEFORE = re.compile(rf"^{_MASK}[ _.-]+", re.I)
LAST_WORD = re.compile(r"[ _.-]+[^\W\d_]+(?=\.\w+$)")  # x_lung_mask.png
# words that mean less; such a mask is of a format that keeps its values
TRUTH = re.compile(r"[_-](gt|seg|segmentation)([_-]?\d+)?(?=\.(png|bmp|gif|tiff?)$)", re.I)
OF_FOLDER = re.compile(r"^masks?[ _-]+|[ _-]*masks?$", re.I)

Key = tuple[str, str]  # where a picture lies, and its stem


@cache
def folder_kind(name: str) -> Literal["pictures", "masks", ""]:
    """Return what a folder of a segmentation set holds, by its name; empty if it names neither."""
    words = {*words_in(name)}
    if any(word.endswith(("mask", "masks")) for word in words):
        return "masks"
    if not words <= SPLIT_WORDS.keys() | PICTURES | MASKS:
        return ""
    return "masks" if words & MASKS else "pictures" if words else ""


def masks_of(names: Sequence[str]) -> set[str]:
    """Return those of the files `names` that are masks of others."""
    masks: dict[str, set[Key]] = {}  # a name, and the pictures that it may be of
    for name in names:
        folder, _, file = name.rpartition("/")
        apart, own = _above(folder, "masks"), _pictures_named(file)
        if apart or own:
            keys = {(place, stem) for place in apart for stem in (_stem(file), *own)}
            masks[name] = keys | {(f"{folder}/", stem) for stem in own}
    pictures: set[Key] = set()
    for name in names if masks else ():
        folder, _, file = name.rpartition("/")
        innermost = max(map(len, _above(folder, "masks")), default=-1)
        places = [place for place in _above(folder, "pictures") if len(place) > innermost]
        pictures |= {(place, _stem(file)) for place in (f"{folder}/", *places)}
    found = {name for name, keys in masks.items() if keys & pictures}
    for folder, beside in _beside(names) if masks else ():
        whole = [name for name in names if name.startswith(f"{folder}/")]
        if all(_in(beside + name.removeprefix(folder)) & pictures for name in whole):
            found.update(whole)
    return found


def _in(name: str) -> set[Key]:
    """Return the pictures that a file may be the mask of, if its folder is that of pictures."""
    folder, _, file = name.rpartition("/")
    return {(f"{folder}/", stem) for stem in (_stem(file), *_pictures_named(file))}


def _beside(names: Iterable[str]) -> list[tuple[str, str]]:
    """Return (Cat_mask, Cat) of folders called so that lie beside a third one.

    Without that, what is left would be of one class: of a face and a face_mask each is a class.
    """
    holding = {name.rpartition("/")[0] for name in names}
    paths = {path for folder in holding for path in accumulate(folder.split("/"), "{}/{}".format)}
    plain = {fold(path): path for path in paths if folder_kind(path.rpartition("/")[2]) != "masks"}
    many = Counter(path.rpartition("/")[0] for path in plain.values())
    found = []
    for path in sorted(paths - {*plain.values()}):
        above, slash, name = path.rpartition("/")
        other = plain.get(fold(above + slash + OF_FOLDER.sub("", name)))
        if other and many[above] > 1:
            found.append((path, other))
    return found


def _pictures_named(file: str) -> set[str]:
    """Return the stems of the pictures that a file is the mask of, if it is called as one."""
    if not CALLED.search(file):
        return set()
    behind = {cut for pattern in (BEHIND, TRUTH) if (cut := pattern.sub("", file)) != file}
    words = {*behind, *(LAST_WORD.sub("", cut) for cut in behind), BEFORE.sub("", file)} - {file}
    return {_stem(cut) for cut in words}


@cache
def _above(folder: str, kind: str) -> list[str]:
    """Return where the folders of a kind lie that `folder` is one of, or lies in."""
    parts = folder.split("/")
    return ["/".join(parts[:at]) for at, part in enumerate(parts) if folder_kind(part) == kind]


def _stem(file: str) -> str:
    return file.rpartition(".")[0] or file
