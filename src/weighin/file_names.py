"""The names of files: lists those of a folder, and finds the file that a name in a table means.

One rule serves training tables, COCO files, test folders, truth and score. A name means the file
of exactly that name. Where there is none, names and files are compared part by part from the end,
in their coarsest form, and of the files that share most parts with the name the nearest is taken:

    1. its last part is the same but for Unicode form, case, percent-encoding, blanks and what is
       not seen,
    2. its folders are the same; or one path is the end of the other; or only the last part is,
    3. it needs the earlier of the forms in `FORMS` to be the same.

A name that has two nearest files, and a file that is nearest to two names, are ambiguous: the name
finds nothing, and the caller says so. What matched how is counted. A name that spells another's
whole path anew means that file once more.
"""

import os
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from urllib.parse import unquote

from weighin.errors import DataError

IMAGE_SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"),
    *(".ppm", ".pgm", ".pbm", ".pnm", ".avif", ".jp2", ".j2k", ".heic", ".heif", ".dng"),
)
# what file managers, cameras, archives and network disks leave behind, in lower case
DROPPINGS = re.compile(
    r"thumbs\.db|ehthumbs(_vista)?\.db|desktop\.ini|folder\.jpg:encryptable|picasa\.ini|icon\r"
    r"|__macosx|\$recycle\.bin|recycler|system volume information|lost\+found|@eadir|#recycle"
    r"|@recycle|network trash folder|temporary items|__pycache__|~\$.*"
)
# a file that is kept under the hash of its bytes: by DVC, by the Hugging Face hub, by git-annex
STORED = re.compile(
    r"/(files/md5|cache)/[0-9a-f]{2}/[0-9a-f]{30}$|/blobs/([0-9a-f]{40}|[0-9a-f]{64})$"
    r"|/\.git/annex/objects/.+/[A-Z0-9]+-.+$"
)
TRAIN, VALIDATION, TEST = "train", "validation", "test"
_SPLITS = {
    **dict.fromkeys(("train", "training", "trn"), TRAIN),
    **dict.fromkeys(("val", "valid", "validation", "validate", "dev"), VALIDATION),
    **dict.fromkeys(("eval", "evaluation"), VALIDATION),
    **dict.fromkeys(("test", "testing", "tst"), TEST),
}
_HELD = ("", "set", "data", "dataset", "image", "images", "img", "imgs", "dir", "folder")
SPLIT_WORDS = {  # traindata, and what other languages say
    **{word + held: split for word, split in _SPLITS.items() for held in _HELD},
    **dict.fromkeys(("entrenamiento", "treino", "treinamento", "addestramento"), TRAIN),
    **dict.fromkeys(("entraînement", "entrainement", "apprentissage", "обучение"), TRAIN),
    **dict.fromkeys(("训练", "训练集", "訓練", "訓練集", "학습", "훈련"), TRAIN),
    **dict.fromkeys(("validación", "validacion", "validação", "validacao"), VALIDATION),
    **dict.fromkeys(("validazione", "validierung", "валидация"), VALIDATION),
    **dict.fromkeys(("验证", "验证集", "驗證", "驗證集", "検証", "검증"), VALIDATION),
    **dict.fromkeys(("prueba", "pruebas", "teste", "prova", "тест", "holdout"), TEST),
    **dict.fromkeys(("测试", "测试集", "測試", "測試集", "テスト", "테스트"), TEST),
}
MASKS = {  # words of folders that hold the masks of a segmentation set
    *("mask", "masks", "label", "labels", "annotation", "annotations", "annot", "annots"),
    *("gt", "gts", "groundtruth", "ground", "truth", "segmentation", "segmentations"),
    *("segmentationclass", "segmentationobject", "trimap", "trimaps", "superpixel", "superpixels"),
}
UPLOADED = re.compile(r"^[0-9a-f]{8}-(?=.)")  # what Label Studio puts before an uploaded file
LOCAL_FILES = "/data/local-files/?d="  # how Label Studio names a file of its disk
LOCATION = r"^\w[\w+.-]+://[^/]*|^[A-Za-z]:(?=[\\/])"  # a URL's scheme and host, or a drive
ZEROS = "leading zeros"
MANY = 64  # files that share as many parts with a name: they are not told apart


@dataclass(frozen=True)
class Matches:
    """Which file each name means."""

    found: dict[str, str]  # name: file, in the order of the names
    missing: tuple[str, ...]
    ambiguous: dict[str, tuple[str, ...]]  # name: the files, or the names, that it is mixed up with
    tolerances: Counter[str]  # why a name is not the file's own: how many names
    again: dict[str, str] = field(default_factory=dict)  # another spelling of a found name: file
    folder: Path | str = ""  # in which the files lie

    @property
    def are_sure(self) -> bool:
        """Whether most names mean a file, and not as numbers do: a running number means many."""
        names = {*self.found, *self.missing, *self.ambiguous, *self.again}
        numbers = sum(many for why, many in self.tolerances.items() if why.endswith(ZEROS))
        return (len(self.files) - numbers) * 2 > len(names)

    @property
    def files(self) -> dict[str, str]:
        """Return {name: file} of every name that means one, by any of its spellings."""
        return {**self.found, **self.again}

    def of_files(self, labels: Mapping[str, str], table: Path | str) -> dict[str, str]:
        """Return {file: label} of the names that mean a file.

        Raises:
            DataError: two names of one file have different labels in `table`.
        """
        found = {file: labels[name] for name, file in self.found.items()}
        for name, file in self.again.items():
            if labels[name] != found[file]:
                first = next(other for other, its in self.found.items() if its == file)
                raise DataError(
                    f'{table} lists {file} twice, as "{found[file]}" ({first}) and as '
                    f'"{labels[name]}" ({name})',
                    f"remove the wrong row from {table}",
                )
        return found

    def words(self) -> str:
        """Return how many names were found, and by which tolerance: one line."""
        inexact = "".join(f", {many:,} by {why}" for why, many in sorted(self.tolerances.items()))
        total = len(self.found) + len(self.missing) + len(self.ambiguous)
        exact = len(self.found) - self.tolerances.total()
        return f"{len(self.found):,} of {total:,} names found: {exact:,} exactly{inexact}"

    def refuse_ambiguous(self, table: Path | str) -> None:
        """Check that every name of `table` means one file.

        Raises:
            DataError: shows the first ambiguous name and what it could mean.
        """
        for name, others in self.ambiguous.items():
            many = len(self.ambiguous)
            raise DataError(
                f'{table}: "{name}" may mean {" or ".join(others[:2])}'
                + (f"; {many:,} names are as ambiguous" if many > 1 else ""),
                f"write the path of each file, relative to the images' folder, into {table}",
            )


def walk(folder: Path | str) -> Iterator[tuple[str, "os.DirEntry[str]"]]:
    """Yield each entry below `folder` that is no folder: its path with "/", and the entry.

    Hidden entries and other systems' droppings are passed over, with all that lies in them. A
    link is an entry, whatever it leads to, and is never followed.

    Raises:
        DataError: a folder cannot be listed.
    """
    pending = [""]
    while pending:
        below = pending.pop()
        place = os.path.join(folder, below)  # noqa: PTH118 - a Path of each would double the time
        try:
            with os.scandir(place) as entries:
                for entry in entries:
                    if entry.name.startswith(".") or DROPPINGS.fullmatch(entry.name.lower()):
                        continue
                    if entry.is_dir(follow_symlinks=False):
                        pending.append(f"{below}{entry.name}/")
                    else:
                        yield below + entry.name, entry
        except OSError as error:
            fix = "make the folder readable for this user (chmod -R a+rX), then run again"
            raise DataError(f"cannot list {place.rstrip(os.sep)}: {error.strerror}", fix) from None


def escapes(path: Path | str, root: Path | str) -> bool:
    """Return whether `path` leads out of `root`, other than to a store that links are made to."""
    real, top = os.path.realpath(path), os.path.realpath(root)
    inside = real == top or real.startswith(top.rstrip(os.sep) + os.sep)
    return not inside and not STORED.search(real.replace(os.sep, "/"))


def match_folder(names: Iterable[str], folder: Path) -> Matches:
    """Return which readable file of `folder`, at any depth, each name means.

    The folder is walked only if a name is not a file's own. A link that escapes is no file, nor is
    one whose name is not UTF-8.
    """
    names = list(dict.fromkeys(names))
    if all(_usable(folder, name) and _is_plain(name) for name in names):
        return Matches({name: name for name in names}, (), {}, Counter(), folder=folder)
    return match(names, (name for name, _ in walk(folder) if _usable(folder, name)), folder)


def _is_plain(name: str) -> bool:
    """Return whether a path has no part by which another would be the same file."""
    return not {"", ".", ".."} & {*name.split("/")}


def find_folder(table: Path, names: Iterable[str]) -> Path:
    """Return the folder that holds most of the files of a table: its own, or one beside it.

    Of two beside it that hold as many, masks/ is not meant, and train_images/ is that of train.csv.

    Raises:
        DataError: two folders beside it hold files of these names, and are not told apart.
    """
    names = list(names)
    some = names[:50]
    beside = sorted(
        path
        for path in table.parent.iterdir()
        if path.is_dir() and path.name[0] != "." and not DROPPINGS.fullmatch(path.name.lower())
    )
    folders = [table.parent, *beside]
    exact = [sum(_usable(folder, name) for name in some) for folder in folders]
    sure = exact.count(max(exact)) == 1 or max(exact) == len(some)
    found = exact if sure else [len(match_folder(some, f).found) for f in folders]
    best = [folder for folder, many in zip(folders, found, strict=True) if many == max(found)]
    return best[0] if best[0] == table.parent else _told_apart(table, names, best)


def _told_apart(table: Path, names: list[str], folders: list[Path]) -> Path:
    """Return the folder that a table speaks of, of those that hold as many of its first files."""
    words = {*words_in(table.stem)}
    folders = [f for f in folders if not MASKS.intersection(words_in(f.name))] or folders
    called = [folder for folder in folders if words.intersection(words_in(folder.name))]
    counts = [len(match_folder(names, f).found) for f in called or folders]
    best = [f for f, many in zip(called or folders, counts, strict=True) if many == max(counts)]
    if len(best) > 1:
        raise DataError(
            f"{best[0]} and {best[1]} both hold files of the names that {table} lists",
            f"name the folder of its images: --images {best[0]}",
        )
    return best[0]


def words_in(name: str) -> list[str]:
    """Return the words of a name, in lower case: what is left between digits and punctuation."""
    return re.findall(r"[^\W\d_]+", fold(name))


def _usable(folder: Path, name: str) -> bool:
    path = os.path.join(folder, name)  # noqa: PTH118
    readable = os.path.isfile(path) and os.access(path, os.R_OK)  # noqa: PTH113 - false for any name
    return readable and is_text(name) and not escapes(path, folder)


def match(names: Iterable[str], files: Iterable[str], folder: Path | str = "") -> Matches:
    """Return which of `files` (paths below `folder`, with "/") each of `names` means."""
    names, listed = list(dict.fromkeys(names)), dict.fromkeys(files)
    others = [name for name in names if name not in listed]
    claims: dict[str, list[Claim]] = {}
    ambiguous: dict[str, tuple[str, ...]] = {}
    if others:
        index = _Index(listed, folder)
        for name in others:
            nearest = index.nearest(name)
            if len(nearest) == 1:
                claims.setdefault(nearest[0].file, []).append(nearest[0])
            elif nearest:
                ambiguous[name] = tuple(claim.file for claim in nearest)
    exact = set(names) - set(others)
    given: dict[str, Claim] = {}
    again: dict[str, str] = {}
    for file, rivals in claims.items():
        least = min(claim.distance for claim in rivals)
        first = [claim for claim in rivals if claim.distance == least]
        if file in exact or len(first) == 1:
            own = None if file in exact else first[0]
            given |= {own.name: own} if own else {}
            again |= {claim.name: file for claim in rivals if claim.same and claim is not own}
        else:
            mixed = " and ".join(claim.name for claim in first[:2])
            ambiguous |= {claim.name: (f"{file}, as {mixed} both do",) for claim in first}
    found = {n: n if n in exact else given[n].file for n in names if n in exact or n in given}
    known = found.keys() | ambiguous.keys() | again.keys()
    missing = tuple(name for name in names if name not in known)
    tolerances = Counter(claim.why for claim in given.values())
    return Matches(found, missing, ambiguous, tolerances, again, folder)


def _nfc(part: str) -> str:
    return unicodedata.normalize("NFC", part)


def fold(part: str) -> str:
    """Return the form in which names are compared without regard to case and Unicode form."""
    return part.lower() if part.isascii() else _nfc(_nfc(part).casefold())


def seen_form(text: str) -> str:
    """Return what a reader sees of a text: no case, no repeated blanks, no invisible signs."""
    if text.isascii():
        return " ".join(text.lower().split())
    wide = unicodedata.normalize("NFKC", text)
    seen = "".join(letter for letter in wide if unicodedata.category(letter) != "Cf")
    return " ".join(fold(seen).split())


@lru_cache(10_000)
def class_form(name: str) -> str:
    """Return the form in which two classes are one: as seen, with 7 for 07 and 7.0, a b for a_b."""
    words = " ".join(re.sub(r"(?<=[^\W_])[_-]+(?=[^\W_])", " ", seen_form(name)).split())
    return re.sub(r"^0*(\d+)(\.0+)?$", r"\1", words)


def _decoded(part: str) -> str:
    return seen_form(unquote(part))


def _stem(part: str) -> str:
    stem, dot, suffix = _decoded(part).rpartition(".")
    return stem if stem and dot + suffix in IMAGE_SUFFIXES else _decoded(part)


def _number(part: str) -> str:
    stem = re.sub(r"^(\d+)\.0$", r"\1", _stem(part))  # spreadsheets write 7 or 7.0 for 007
    return (stem.lstrip("0") or "0") if stem.isdigit() else stem


# ever coarser forms in which the parts of a path are compared; the last two for the last part alone
FORMS = (
    ("", lambda part: part),
    ("Unicode form", _nfc),
    ("case", fold),
    ("percent-encoding, blanks or what is not seen", _decoded),
    ("file suffix", _stem),
    (ZEROS, _number),
)
LOOSE = 4  # from this form on another file may be meant
UPLOAD = (len(FORMS), "upload prefix")
PATHS = ("", "part of the path", "last part of the path")


@dataclass(frozen=True)
class Claim:
    """A name that may mean a file."""

    name: str
    file: str
    distance: tuple[int, bool, int, int]  # -parts in common, loose?, folders (as PATHS), form
    why: str
    same: bool = False  # whether it is the file's whole path, and can mean no other


class _Index:
    """Files by the coarsest form of the ends of their paths."""

    def __init__(self, files: Iterable[str], folder: Path | str) -> None:
        self._root = parts_of(str(Path(folder).absolute())) if str(folder) else []
        self._files = list(files)

    @cached_property
    def _by_end(self) -> dict[str, list[str]]:
        ends: dict[str, list[str]] = {}
        for file in self._files:
            for end in _ends(parts_of(file)):
                ends.setdefault(end, []).append(file)
        return ends

    def nearest(self, name: str) -> list[Claim]:
        """Return the claims of `name` to its nearest files: none, one, or several alike."""
        parts = parts_of(name)
        files = next((self._by_end[end] for end in _ends(parts) if end in self._by_end), [])
        if len(files) > MANY:  # not worth comparing: no two are told apart by what is left
            return [Claim(name, file, (0, False, 0, 0), "") for file in files[:2]]
        claims = [claim for file in files if (claim := self._claim(name, parts, file))]
        least = min((claim.distance for claim in claims), default=None)
        return [claim for claim in claims if claim.distance == least]

    def _claim(self, name: str, parts: list[str], file: str) -> Claim | None:
        own = parts_of(file)
        last = _last_form(parts[-1], own[-1])
        if last is None:
            return None
        form, word = last
        common = 0
        for mine, its in zip(parts[-2::-1], [*self._root, *own][-2::-1], strict=False):
            if _decoded(mine) != _decoded(its):
                break
            common += 1
            form, word = max((form, word), _form(mine, its, LOOSE) or (0, ""))
        folders, depth = len(parts) - 1, len(own) - 1
        how = 0 if common == folders == depth else 1 if common >= min(folders, depth) else 2
        why = " and ".join(filter(None, (PATHS[how], word))) or "separators"
        same = common >= max(folders, depth) and form < LOOSE
        return Claim(name, file, (-common, form >= LOOSE, how, form), why, same)


def parts_of(path: str) -> list[str]:
    """Return the parts of a path or URL written on any system, without drive, host and dots."""
    given, path = path.strip(), re.sub(LOCATION, "", path.strip())
    if path.startswith(LOCAL_FILES):
        path = unquote(path.removeprefix(LOCAL_FILES))
    elif given.startswith(("http://", "https://")):
        path = unquote(re.sub(r"[?#].*$", "", path, flags=re.S))
    parts: list[str] = []
    for part in path.replace("\\", "/").split("/"):
        if part == "..":
            del parts[-1:]
        elif part.strip() not in ("", "."):
            parts.append(part.strip())
    return parts or [""]


def _ends(parts: list[str]) -> Iterator[str]:
    """Yield the coarsest forms of the ends of a path, the longest first."""
    last = _number(UPLOADED.sub("", _stem(parts[-1])))
    folders = [_decoded(part) for part in parts[:-1]]
    for start in range(len(parts)):
        yield "/".join((*folders[start:], last))


def _last_form(one: str, other: str) -> tuple[int, str] | None:
    """Return the first form in which the last parts of two paths are the same, and its word."""
    found = _form(one, other, len(FORMS))
    if found is None:
        stems = _stem(one), _stem(other)
        bare = tuple(UPLOADED.sub("", stem) for stem in stems)
        return UPLOAD if stems[0] == bare[1] or stems[1] == bare[0] else None
    return found


def _form(one: str, other: str, upto: int) -> tuple[int, str] | None:
    pairs = enumerate(FORMS[:upto])
    return next(((at, word) for at, (word, form) in pairs if form(one) == form(other)), None)


def is_text(name: str) -> bool:
    """Return whether UTF-8 can hold a name: bytes of another encoding are half letters in it."""
    return name.isascii() or not re.search("[\ud800-\udfff]", name)


def printable(name: str) -> str:
    """Return a name that UTF-8, a CSV and a terminal can show.

    Bytes of another encoding become ``\\udcXX``, control characters ``\\xXX``.
    """
    shown = re.sub(r"[\x00-\x1f\x7f-\x9f]", lambda found: f"\\x{ord(found[0]):02x}", name)
    return shown.encode("utf-8", "backslashreplace").decode()
