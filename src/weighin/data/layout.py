"""What the folders of a tree of images are: classes, groups, or the splits of a data set.

    <Class>/[group/]x.jpg                  one folder a class; a folder below it is a group
    <folder>/<folder>/<Class>/x.jpg        folders that hold all the rest are passed through
    Training/<Class>/x.jpg, seg_test/...   splits, in any spelling; a test may have no classes
    <Class>/train/x.jpg, <Class>/val/...   splits within each class; folders below may be groups
    images/..., masks/...                  a segmentation set: its masks are left out

A tree is the names of its files, with "/" between their parts. None is opened, but for tables of
which an error names one.

Masks lie in folders beside the pictures' at any depth, or beside the picture itself:

    images/x.jpg, masks/x.png              also <Class>/images/x.png, <Class>/lung masks/x.png
    <Class>/x.png, <Class>_mask/x.png      folders beside each other, of which one has the other's
    <Class>/x.png, <Class>/x_mask.png      also x_lung_mask, mask_x

A mask labels pixels and is no picture of a class. Only one that has a picture of its own is taken
for a mask: a class may be called mask, or with_mask.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from itertools import accumulate
from pathlib import Path
from typing import Literal

from weighin.errors import DataError
from weighin.file_names import (
    MASKS,
    SPLIT_WORDS,
    TEST,
    TRAIN,
    VALIDATION,
    class_form,
    fold,
    words_in,
)

FILLERS = {
    *("seg", "set", "split", "data", "dataset", "image", "images", "img", "imgs"),
    *("photo", "photos", "picture", "pictures", "folder", "dir", "cls"),
}
NO_IMAGE = re.compile(
    r"\.(txt|md|rst|csv|tsv|json|jsonl|ndjson|xml|ya?ml|html?|pdf|docx?|xlsx?|py|ipynb|sh|m|mat|npy|npz"
    r"|pkl|h5|zip|tar|gz|7z|rar|url|log|ini|cfg|names|cache|mp4|mov|avi)$",
    re.I,
)

TABLE = re.compile(r"\.(csv|tsv|json|jsonl|ndjson|xml)$", re.I)
SAMPLE, MOST_TEXT = 50, 2**24  # tables and images, and bytes, that tell which table is meant

# what file managers, drives and browsers call a copy of a folder, in the form of classes
_COPY = r"(?:copy|kopie|copie|copia|cópia|kopia|kopi|kopya|копия|복사본|副本|コピー)"
COPIES = re.compile(
    rf"(?P<own>.+?)(?: ?\(\d+\)| (?:[-–—] ?)?\(?(?:another |\d+\w\w )?{_COPY}\)?(?: \(?\d+\)?)?)"
    rf"|{_COPY}(?: of| von| de|) (?P<of>.+)"
)
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


@dataclass(frozen=True)
class Placed:
    """One file: the split it is of, its class (empty: unlabelled) and what lies below that."""

    name: str
    split: str
    label: str
    group: str
    rest: str  # the path below the class folder


@dataclass
class Layout:
    """The files of a tree, each in its place, and what was seen on the way."""

    files: list[Placed] = field(default_factory=list)
    left_out: list[tuple[str, str]] = field(default_factory=list)  # (reason, name)
    notes: list[str] = field(default_factory=list)


def split_word(name: str, shared: Iterable[str] = ()) -> str:
    """Return the split that a folder's name stands for; empty if none.

    `shared` are words that the folders beside it have too: asl_train, asl_test.
    """
    words = [word for word in words_in(name) if word not in FILLERS]
    telling = [word for word in words if word not in shared]
    return SPLIT_WORDS.get(telling[0], "") if len(telling) == 1 else ""


def read_layout(
    names: Sequence[str], source: object, level: Literal["outer", "inner"] | None = None
) -> Layout:
    """Return where the files of the tree `source` belong; `level` says which folders are classes.

    Raises:
        DataError: no folder is one of a class, or two levels may be the classes.
    """
    layout = Layout()
    names = _images(names, layout)
    skip = _wrappers(names)
    tops = _tops(names, skip)
    splits = split_names(tops)
    if splits and _deep(names, skip, splits):
        _of_splits(names, skip, splits, source, level, layout)
    elif splits and len(splits) == len(tops):
        raise _no_classes(source, tops, _table_beside(source, names, layout))
    elif splits and level is None:
        raise DataError(
            f"{source}: its folders {_listed(sorted(splits))} are called as splits are, and lie "
            "beside classes",
            "move them out and name them with --validation or --test; or run again with "
            "--classes outer, if they are classes",
        )
    else:
        _of_classes(names, skip, source, level, layout)
    labels = sorted({placed.label for placed in layout.files if placed.split != TEST})
    kinds = {folder_kind(label) for label in labels}
    if level is None and "pictures" in kinds and "" not in kinds:
        raise _no_classes(source, labels, _table_beside(source, names, layout))
    if level is None and len(labels) == 1 and (table := _table_beside(source, names, layout, 1)):
        raise _no_classes(source, labels, table)
    if level is None:
        _refuse_split_classes(labels, source)
        _refuse_copies(labels, source)
    return layout


def _refuse_copies(labels: Sequence[str], source: object) -> None:
    """Refuse a folder that is called as the copy of another: Cat - Copy, Cat (1)."""
    folders = {class_form(label): label for label in labels}
    for form, copy in folders.items():
        found = COPIES.fullmatch(form)
        if found and (own := folders.get(found["own"] or found["of"])):
            raise DataError(
                f'{source}: its folder "{copy}" is called as a copy of "{own}" is',
                f'move its images into "{own}", or remove it; or run again with --classes outer, '
                "if they are two classes",
            )


def _refuse_split_classes(labels: Sequence[str], source: object) -> None:
    """Refuse classes whose names differ by a split alone: cat_train, cat_test."""
    seen: dict[str, tuple[str, str]] = {}
    for label in labels:
        words = re.findall(r"[^\W_]+", label.lower())
        split = next((SPLIT_WORDS[word] for word in words if word in SPLIT_WORDS), "")
        rest = " ".join(word for word in words if word not in SPLIT_WORDS)
        other, its = seen.setdefault(rest, (label, split)) if split and rest else (label, split)
        if its != split:
            raise DataError(
                f"{source}: its folders {other} and {label} differ by the name of a split alone",
                f"sort them into {its}/{rest} and {split}/{rest}; or run again with --classes "
                "outer, if they are two classes",
            )


def _no_classes(source: object, folders: Sequence[str], table: str) -> DataError:
    told = f", such as {source}/{table}" if table else ""
    return DataError(
        f"{source}: its folders {_listed(folders)} hold images, not one folder a class",
        f"name the CSV or COCO file of their classes{told}, or sort them into class folders",
    )


def _table_beside(source: object, names: Sequence[str], layout: Layout, least: int = 0) -> str:
    """Return the table of a tree that names most of its images to train on, `least` at least.

    Empty if there is none. The sample of a submission, which gives test images any class, is none.
    """
    tables = [name for _, name in layout.left_out if TABLE.search(name)]
    train = [name for name in names if split_word(name.split("/")[0]) != TEST]
    images = {name.rpartition("/")[2].rpartition(".")[0] for name in train[:SAMPLE]}
    own = [name for name in tables if not {"submission", "sample"} & {*words_in(name)}]

    def named(table: str) -> int:
        try:
            with Path(str(source), table).open("rb") as file:
                text = file.read(MOST_TEXT).decode("utf-8", "ignore").replace("\0", "")
        except OSError:
            return 0
        words = re.split(r"""[\s,;:|"'/\\]+""", text)
        return len(images & {*words, *(word.rpartition(".")[0] for word in words)})

    found = [(named(table), -place) for place, table in enumerate(own[:SAMPLE])]
    most, place = max(found, default=(-1, 0))
    return own[-place] if most >= least else ""


def read_test(names: Sequence[str], classes: Iterable[str]) -> Layout:
    """Return a test's files; its folders are labels if one of them is called as a class is."""
    layout = Layout()
    names = _images(names, layout)
    _of_test(names, _wrappers(names, classes), classes, layout)
    return layout


def _images(names: Sequence[str], layout: Layout) -> list[str]:
    """Return the names of images; of what is none, and of masks, it is said that they are."""
    for name in names:
        if found := NO_IMAGE.search(name):
            layout.left_out.append((f"a {found[0].lower()} file, no image", name))
    names = [name for name in names if not NO_IMAGE.search(name)]
    masks = masks_of(names)
    layout.left_out += [("a mask of another image", name) for name in names if name in masks]
    return [name for name in names if name not in masks] if masks else names


def _wrappers(names: Sequence[str], classes: Iterable[str] = ()) -> int:
    """Return how many folders are passed through: each holds all that most of the files lie in."""
    known = {class_form(name) for name in classes}
    skip = 0
    while True:
        parts = [name.split("/")[skip:] for name in names]
        deep = [part for part in parts if len(part) > (1 if known else 2)]
        tops = {part[0] for part in parts if len(part) > 1}
        if len(tops) != 1 or len(deep) * 2 <= len(parts) or {class_form(t) for t in tops} & known:
            return skip
        skip += 1


def _tops(names: Sequence[str], skip: int) -> list[str]:
    parts = (name.split("/")[skip:] for name in names)
    return sorted({part[0] for part in parts if len(part) > 1})


def split_names(tops: Sequence[str]) -> dict[str, str]:
    """Return {name: split} of the folders, or files, that are called as splits are."""
    words = [{*words_in(top)} for top in tops]
    shared = set.intersection(*words) if len(words) > 1 else set()
    found = {top: split_word(top, shared) for top in tops}
    return {top: split for top, split in found.items() if split}


def _deep(names: Sequence[str], skip: int, splits: dict[str, str]) -> bool:
    """Return whether the folders are splits: one holds classes, and it is not the only such name.

    A class may be called train: among planes and cars it is no split.
    """
    parts = [name.split("/")[skip:] for name in names]
    deep = any(len(part) > 2 and splits.get(part[0]) == TRAIN for part in parts)
    tops = {part[0] for part in parts if len(part) > 1}
    return deep and (len(splits) > 1 or len(tops) == 1)


def _of_splits(
    names: Sequence[str],
    skip: int,
    splits: dict[str, str],
    source: object,
    level: str | None,
    layout: Layout,
) -> None:
    below: dict[str, list[str]] = defaultdict(list)
    for name in names:
        parts = name.split("/")[skip:]
        if len(parts) > 1 and parts[0] in splits:
            below[parts[0]].append(name)
        else:
            where = f"in {parts[0]}/, which is no split" if len(parts) > 1 else "not in a folder"
            layout.left_out.append((where, name))
    told = ", ".join(f"{top}/ is the {splits[top]} split" for top in sorted(below))
    layout.notes.append(told)
    for top in sorted(below, key=lambda top: (TRAIN, VALIDATION, TEST).index(splits[top])):
        inner = ["/".join(name.split("/")[skip + 1 :]) for name in below[top]]
        known, where = len(layout.files), f"{source}/{top}"
        if splits[top] == TEST:
            classes = {placed.label for placed in layout.files}
            _of_test(below[top], skip + 1 + _wrappers(inner, classes), classes, layout)
            if list(splits.values()).count(TEST) > 1:  # names repeat from test to test
                layout.files[known:] = [
                    replace(placed, rest=f"{top}/{placed.rest}") for placed in layout.files[known:]
                ]
            continue
        flat = {fold(n.split("/")[-2]) for other in below if other != top for n in below[other]}
        base = skip + 1 + _wrappers(inner)
        _of_classes(below[top], base, where, level, layout, splits[top], flat)
        if level is None and splits[top] == VALIDATION:
            _refuse_unlabelled(layout.files[:known], layout.files[known:], where)


def _refuse_unlabelled(trained: Sequence[Placed], validated: Sequence[Placed], where: str) -> None:
    """Refuse a validation split that holds images/ where training holds classes."""
    classes, labels = ({placed.label for placed in files} for files in (trained, validated))
    own = sorted(label for label in labels - classes if folder_kind(label) == "pictures")
    if own and "" in map(folder_kind, classes):
        raise DataError(
            f"{where}: its folders {_listed(own)} hold images, not one folder a class",
            f"sort them into the folders of their classes, or move {where} away: prepare then "
            "chooses what validates",
        )


def _of_classes(
    names: Sequence[str],
    skip: int,
    source: object,
    level: str | None,
    layout: Layout,
    split: str = "",
    flat: Collection[str] = (),
) -> None:
    """Place the files of class folders; `flat` are folders of images that other splits hold."""
    places = [name.split("/")[skip:] for name in names]
    words = {parts[1]: word for parts in places if parts[2:] and (word := split_word(parts[1]))}
    kinds = {*words.values()}
    deep = any(parts[3:] and parts[1] in words for parts in places)
    within = not split and TRAIN in kinds and len(kinds) > 1 and (deep or level != "inner")
    if within:
        each = "folder" if level == "inner" else "class folder"
        layout.notes.append(f"each {each} holds the splits {_listed(sorted(words))}")
    cut = [_cut_split(parts, words if within else {}) for parts in places]
    below: dict[str, Counter[str]] = defaultdict(Counter)  # class folder: its folders, "" for none
    for own, parts in cut:
        if len(parts) > 1 and own != TEST:
            below[parts[0]][parts[1] if len(parts) > 2 else ""] += 1
    if level is None:
        layout.notes += _two_levels(below, source, flat)
    spelled = {class_form(placed.label): placed.label for placed in layout.files}
    for name, (own, parts) in zip(names, cut, strict=True):
        if len(parts) < 2:
            layout.left_out.append(("not in a class folder", name))
            continue
        own = own or (TRAIN if within else split)
        if level == "inner" and len(parts) > 2:
            _, label, *rest = parts
        else:
            label, *rest = parts
            label = "" if own == TEST and level == "inner" else label
        rest = parts if own == TEST else rest  # names repeat from class to class
        label = spelled.get(class_form(label), label) if own == VALIDATION else label
        group = parts[0] if level == "inner" else rest[0] if len(rest) > 1 else ""
        group = "" if own == TEST else group
        layout.files.append(Placed(name, own, label, group, "/".join(rest)))


def _cut_split(parts: list[str], splits: dict[str, str]) -> tuple[str, list[str]]:
    """Return the split that the second folder of a path names, and the path without it."""
    if len(parts) > 2 and parts[1] in splits:
        return splits[parts[1]], [parts[0], *parts[2:]]
    return "", parts


def _two_levels(below: dict[str, Counter[str]], source: object, flat: Collection[str]) -> list[str]:
    """Refuse a tree of which two levels may be the classes; return what is said of one with groups.

    That is where folders hold folders alone, or one that is called as another class, beside
    folders of images; or where most folders in one are in others too.
    """
    held = {top: {n for n in found if not _no_level(n, top)} for top, found in below.items()}
    tops = {fold(top) for top in below}
    again = {top for top in below if {*map(fold, held[top])} & tops}
    alone = {top for top in below if held[top] and "" not in below[top] and fold(top) not in flat}
    deep = sorted(again | alone)
    beside = sorted(below.keys() - {*deep})
    many = Counter(name for top in deep for name in held[top])
    alike = any(2 * sum(many[n] > 1 for n in held[top]) >= len(held[top]) for top in deep)
    if (deep and beside) or (alike and len(many) > 1):
        flat = f" where {_listed(beside)} hold images" if beside else ""
        raise DataError(
            f"{source}: its folders {_listed(deep)} hold the folders {_listed(sorted(many))}{flat}"
            "; either may be the classes",
            f"run again with --classes outer ({_listed(sorted(below))}) or --classes inner "
            f"({_listed(sorted({*beside, *many}))})",
        )
    if not deep or len(many) < 2:
        return []
    return [
        f"the folders {_listed(sorted(many))} in {_listed(deep)} are taken as groups; --classes "
        "inner takes them as the classes"
    ]


def _no_level(name: str, top: str) -> bool:
    """Return whether a folder of the folder `top` tells nothing: `images`, or `top` once more."""
    return not name or folder_kind(name) == "pictures" or fold(name) == fold(top)


def _of_test(names: Sequence[str], skip: int, classes: Iterable[str], layout: Layout) -> None:
    spelled = {class_form(name): name for name in classes}
    tops = _tops(names, skip)
    folders = [[class_form(part) for part in name.split("/")[skip:-1]] for name in names]
    depths = (at for parts in folders for at, part in enumerate(parts) if part in spelled)
    depth = min(depths, default=None)
    if tops and depth is None:
        layout.notes.append(
            f"the test's folders {_listed(tops)} are called as no class is: its images are taken "
            "as unlabelled"
        )
    for name in names:
        parts = name.split("/")[skip:]
        own = [spelled[class_form(p)] for p in parts[:-1] if class_form(p) in spelled]
        label = own[0] if own else parts[depth] if depth is not None and parts[depth + 1 :] else ""
        layout.files.append(Placed(name, TEST, label, "", "/".join(parts)))


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - 4} more" if len(names) > 4 else ""
    return ", ".join(names[:4]) + more


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
