"""Which level of a tree holds the classes, which folders are splits, what is no image."""

from collections import Counter
from pathlib import Path

import pytest
from photos import write

from weighin.data.layout import Layout, read_layout, read_test, split_word
from weighin.errors import DataError


def placed(layout: Layout) -> dict[str, tuple[str, str, str, str]]:
    return {f.name: (f.split, f.label, f.group, f.rest) for f in layout.files}


@pytest.mark.parametrize(
    ("name", "split"),
    [
        *(("train", "train"), ("TRAIN", "train"), ("Training", "train"), ("seg_train", "train")),
        *(("train_images", "train"), ("train2017", "train"), ("Train-Set", "train")),
        *(("val", "validation"), ("Valid", "validation"), ("validation_set", "validation")),
        *(("dev", "validation"), ("test", "test"), ("Testing", "test"), ("test-data 2", "test")),
        *(("cats", ""), ("steam train", ""), ("testudo", ""), ("", ""), ("images", "")),
    ],
)
def test_names_of_splits(name: str, split: str) -> None:
    assert split_word(name) == split


def test_one_folder_a_class() -> None:
    names = ["a/1.jpg", "a/s 1/2.jpg", "a/s 1/deep/3.jpg", "b/1.jpg"]
    assert placed(read_layout(names, "s")) == {
        "a/1.jpg": ("", "a", "", "1.jpg"),
        "a/s 1/2.jpg": ("", "a", "s 1", "s 1/2.jpg"),
        "a/s 1/deep/3.jpg": ("", "a", "s 1", "s 1/deep/3.jpg"),
        "b/1.jpg": ("", "b", "", "1.jpg"),
    }


@pytest.mark.parametrize("wrap", ["", "set/", "set/dataset-resized/", "train/train/"])
def test_folders_that_hold_all_the_rest(wrap: str) -> None:
    layout = read_layout([f"{wrap}{label}/{n}.jpg" for label in "ab" for n in range(3)], "s")
    assert {(f.split, f.label, f.rest) for f in layout.files} == {
        ("", label, f"{n}.jpg") for label in "ab" for n in range(3)
    }


def test_a_picture_beside_the_folder_that_holds_the_rest() -> None:
    names = ["set/sample.jpg", *(f"set/{label}/{n}.jpg" for label in "ab" for n in range(3))]
    layout = read_layout(names, "s")
    assert {f.label for f in layout.files} == {"a", "b"}
    assert layout.left_out == [("not in a class folder", "set/sample.jpg")]


@pytest.mark.parametrize(
    ("train", "validation", "test"),
    [
        ("train", "val", "test"),
        ("TRAIN", "Valid", "TEST"),
        ("Training", "Validation", "Testing"),
        ("seg_train/seg_train", "seg_dev/seg_dev", "seg_test/seg_test"),
        ("asl_alphabet_train", "asl_alphabet_val", "asl_alphabet_test"),
        ("set/train2017", "set/val2017", "set/test2017"),
        ("traindata", "valdata", "testdata"),
        ("TrainImages", "ValidImages", "TestImages"),
        ("entrenamiento", "validación", "prueba"),
        ("entrenamiento", "validacion", "pruebas"),
        ("训练集", "验证集", "测试集"),
    ],
)
def test_splits_in_any_spelling(train: str, validation: str, test: str) -> None:
    names = [f"{train}/Cat/s1/1.jpg", f"{train}/Dog/1.jpg", f"{validation}/cat/1.jpg"]
    names += [f"{validation}/Dog/2.jpg", f"{test}/cat/7.jpg", f"{test}/Dog/8.jpg"]
    assert placed(read_layout(names, "s")) == {
        f"{train}/Cat/s1/1.jpg": ("train", "Cat", "s1", "s1/1.jpg"),
        f"{train}/Dog/1.jpg": ("train", "Dog", "", "1.jpg"),
        f"{validation}/cat/1.jpg": ("validation", "Cat", "", "1.jpg"),
        f"{validation}/Dog/2.jpg": ("validation", "Dog", "", "2.jpg"),
        f"{test}/cat/7.jpg": ("test", "Cat", "", "cat/7.jpg"),
        f"{test}/Dog/8.jpg": ("test", "Dog", "", "Dog/8.jpg"),
    }


@pytest.mark.parametrize("test", ["test", "test/images", "test/unknown/images"])
def test_a_test_without_classes(test: str) -> None:
    names = ["train/Cat/1.jpg", "train/Dog/1.jpg", f"{test}/7.jpg", f"{test}/8.jpg"]
    layout = read_layout(names, "s")
    tests = [(f.label, f.rest) for f in layout.files if f.split == "test"]
    assert tests == [("", "7.jpg"), ("", "8.jpg")]


def test_what_lies_beside_splits_is_left_out_and_counted() -> None:
    names = ["train/Cat/1.jpg", "test/Cat/1.jpg", "samples/x.jpg", "cover.jpg", "train/odd.jpg"]
    layout = read_layout(names, "s")
    assert sorted(layout.left_out) == [
        ("in samples/, which is no split", "samples/x.jpg"),
        ("not in a class folder", "train/odd.jpg"),
        ("not in a folder", "cover.jpg"),
    ]
    assert layout.notes == ["test/ is the test split, train/ is the train split"]


def test_splits_within_each_class() -> None:
    names = [
        f"{label}/{side}/1.jpg" for label in ("Cat", "Dog") for side in ("Train", "val", "test")
    ]
    layout = read_layout(names, "s")
    assert {(f.split, f.label, f.rest) for f in layout.files} == {
        (split, label, f"{label}/1.jpg" if split == "test" else "1.jpg")
        for label in ("Cat", "Dog")
        for split in ("train", "validation", "test")
    }
    assert layout.notes == ["each class folder holds the splits Train, test, val"]


def test_splits_within_some_classes() -> None:
    names = ["Cat/train/1.jpg", "Cat/test/2.jpg", "Dog/3.jpg", "Dog/s1/4.jpg"]
    assert placed(read_layout(names, "s")) == {
        "Cat/train/1.jpg": ("train", "Cat", "", "1.jpg"),
        "Cat/test/2.jpg": ("test", "Cat", "", "Cat/2.jpg"),
        "Dog/3.jpg": ("train", "Dog", "", "3.jpg"),
        "Dog/s1/4.jpg": ("train", "Dog", "s1", "s1/4.jpg"),
    }


@pytest.mark.parametrize("sides", [("train", "val"), ("train", "test"), ("train", "val", "test")])
def test_splits_above_what_may_be_classes(sides: tuple[str, ...]) -> None:
    names = [f"fold{n}/{side}/{c}/1.jpg" for n in (1, 2) for side in sides for c in ("cat", "dog")]
    with pytest.raises(DataError) as caught:
        read_layout(names, "photos")
    assert caught.value.problem == (
        "photos: its folders fold1, fold2 hold the folders cat, dog; either may be the classes"
    )
    assert "--classes outer (fold1, fold2) or --classes inner (cat, dog)" in caught.value.fix
    words = {"train": "train", "val": "validation", "test": "test"}
    for level, classes, groups in (
        ("outer", {"fold1", "fold2"}, {"cat", "dog"}),
        ("inner", {"cat", "dog"}, {"fold1", "fold2"}),
    ):
        files = read_layout(names, "photos", level).files
        assert {(f.label, f.split) for f in files} == {
            (c, words[s]) for c in classes for s in sides
        }
        assert {f.group for f in files if f.split != "test"} == groups
        assert len({f.rest for f in files if f.split == "test"}) == 4 * ("test" in sides)


def test_groups_below_splits_within_each_class() -> None:
    names = [f"{c}/{side}/{c}{side}/1.jpg" for c in "ab" for side in ("train", "val")]
    layout = read_layout(names, "s")
    assert [(f.label, f.group) for f in layout.files] == [(n[0], n.split("/")[2]) for n in names]
    assert layout.notes[1:] == [
        "the folders atrain, aval, btrain, bval in a, b are taken as groups; --classes inner takes "
        "them as the classes"
    ]
    unlabelled = ["x/train/a/1.jpg", "y/train/b/1.jpg", "x/test/2.jpg"]
    files = read_layout(unlabelled, "s", "inner").files
    assert [(f.split, f.label) for f in files] == [("train", "a"), ("train", "b"), ("test", "")]


@pytest.mark.parametrize("name", ["train", "TEST", "val", "Training set"])
@pytest.mark.parametrize("below", ["", "s1/"])
def test_a_folder_that_is_called_as_a_split_among_classes(name: str, below: str) -> None:
    """It may be a test, or a class: among cars and planes a train is no split."""
    names = [f"{label}/{below}{n}.jpg" for label in ("car", "plane", name) for n in range(3)]
    with pytest.raises(DataError) as caught:
        read_layout(names, "photos")
    assert caught.value.problem == (
        f"photos: its folders {name} are called as splits are, and lie beside classes"
    )
    assert "--classes outer" in caught.value.fix
    layout = read_layout(names, "photos", "outer")
    assert {(f.split, f.label) for f in layout.files} == {("", n) for n in ("car", "plane", name)}


def test_splits_without_class_folders_are_refused() -> None:
    with pytest.raises(DataError) as caught:
        read_layout(["train/1.jpg", "test/2.jpg", "train/_annotations.coco.json"], "photos")
    assert "photos: its folders test, train hold images" in caught.value.problem
    assert "such as photos/train/_annotations.coco.json" in caught.value.fix


def test_the_table_of_the_training_images_is_advised(tmp_path: Path) -> None:
    """As Kaggle lays a contest out: the sample of a submission gives test images any class."""
    tables = {
        "classes.csv": "id,name\n0,Cat\n1,Dog\n",
        "sample_submission.csv": "id,label\n5,Cat\n6,Cat\n",
        "test.csv": "id\n5\n6\n",
        "train.csv": "id,label\n1,Cat\n2,Dog\n",
    }
    for name, text in tables.items():
        write(tmp_path / name, text.encode())
    names = ["test/5.png", "test/6.png", "train/1.png", "train/2.png", *tables]

    def advised(names: list[str]) -> str:
        with pytest.raises(DataError) as caught:
            read_layout(names, tmp_path)
        return caught.value.fix.removeprefix("name the CSV or COCO file of their classes")

    assert advised(names) == f", such as {tmp_path}/train.csv, or sort them into class folders"
    assert advised(names[:4] + names[5:6]) == ", or sort them into class folders"


def test_one_folder_beside_the_table_of_its_images(tmp_path: Path) -> None:
    """Whatever it is called; a table that names none of them says nothing of it."""
    names = ["im/1.png", "im/2.png", "_classes.csv"]
    write(tmp_path / "_classes.csv", b"filename,class\n1.png,Cat\n2.png,Dog\n")
    with pytest.raises(DataError) as caught:
        read_layout(names, tmp_path)
    assert caught.value.problem.endswith("its folders im hold images, not one folder a class")
    assert f"such as {tmp_path}/_classes.csv" in caught.value.fix
    assert {f.label for f in read_layout(names, tmp_path, "outer").files} == {"im"}
    write(tmp_path / "_classes.csv", b"id,license\n7,CC0\n")
    assert {f.label for f in read_layout(names, tmp_path).files} == {"im"}


def test_two_levels_that_may_be_the_classes() -> None:
    names = [f"{year}/{label}/{n}.jpg" for year in (2019, 2020) for label in "ab" for n in range(2)]
    with pytest.raises(DataError) as caught:
        read_layout(names, "photos")
    assert caught.value.problem == (
        "photos: its folders 2019, 2020 hold the folders a, b; either may be the classes"
    )
    assert "--classes outer (2019, 2020)" in caught.value.fix
    assert "--classes inner (a, b)" in caught.value.fix
    outer = read_layout(names, "photos", "outer").files
    assert {(f.label, f.group) for f in outer} == {(y, g) for y in ("2019", "2020") for g in "ab"}
    inner = read_layout(names, "photos", "inner").files
    assert {(f.label, f.group) for f in inner} == {(g, y) for y in ("2019", "2020") for g in "ab"}
    # folders of other names are groups, and that is said
    other = [f"{label}/{label}{n}/{n}.jpg" for label in "ab" for n in range(2)]
    groups = read_layout(other, "photos")
    assert {f.label for f in groups.files} == {"a", "b"}
    assert groups.notes == [
        "the folders a0, a1, b0, b1 in a, b are taken as groups; --classes inner takes them as the "
        "classes"
    ]


ONE_LEVEL_OFF = [
    (("a", "b", "extra/c"), "extra hold the folders c where a, b hold images", "a, b, c"),
    (("a", "b", "extra/a", "extra"), "extra hold the folders a where a, b hold images", "a, b"),
    (("x/a", "x/b", "y/b", "y/c"), "x, y hold the folders a, b, c", "a, b, c"),
]


@pytest.mark.parametrize("split", ["", "train/"])
@pytest.mark.parametrize(("folders", "told", "inner"), ONE_LEVEL_OFF)
def test_a_part_of_a_tree_that_is_one_level_off(
    folders: tuple[str, ...], told: str, inner: str, split: str
) -> None:
    names = [f"{split}{folder}/{n}.jpg" for folder in folders for n in range(3)]
    names += ["test/a/1.jpg", "test/c/2.jpg"] if split else []
    with pytest.raises(DataError) as caught:
        read_layout(names, "photos")
    where = f"photos/{split}".rstrip("/")
    assert caught.value.problem == f"{where}: its folders {told}; either may be the classes"
    assert f"--classes inner ({inner})" in caught.value.fix
    for level, wanted in (
        ("outer", {f.split("/")[0] for f in folders}),
        ("inner", set(inner[::3])),
    ):
        files = [f for f in read_layout(names, "photos", level).files if f.split != "test"]
        assert {f.label for f in files} == wanted | ({"extra"} & {*folders})


def test_a_class_is_spelled_as_training_does_whatever_comes_first() -> None:
    layout = read_layout(["dev/CAT/1.jpg", "dev/07/1.jpg", "train/Cat/1.jpg", "train/7/1.jpg"], "s")
    assert {f.label for f in layout.files} == {"Cat", "7"}


def test_a_folder_of_folders_that_is_plainly_a_class() -> None:
    """Its only folder says nothing, or another split has a folder of images of its name."""
    for names in (["a/1.jpg", "b/images/1.jpg"], ["a/1.jpg", "b/b/1.jpg"]):
        assert {f.label for f in read_layout(names, "s").files} == {"a", "b"}
    split = ["train/a/1.jpg", "train/b/s1/1.jpg", "val/B/2.jpg"]
    labels = [(f.split, f.label, f.group) for f in read_layout(split, "s").files]
    assert labels == [("train", "a", ""), ("train", "b", "s1"), ("validation", "b", "")]


@pytest.mark.parametrize(
    "pair",
    [
        ("images/{c}/{n}.jpg", "masks/{c}/{n}.png"),
        ("{c}/images/{n}.png", "{c}/masks/{n}.png"),
        ("set/JPEGImages/{c}/{n}.jpg", "set/SegmentationClass/{c}/{n}.png"),
        ("{c}/x ({n}).png", "{c}/x ({n})_mask.png"),
        ("images/{c}/{n}.jpg", "labels/{c}/{n}_mask_1.png"),
        ("{c}/images/{n}.png", "{c}/lung masks/{n}.png"),
        ("train/{c}/images/{n}.png", "train/{c}/LungMask/{n}_mask.png"),
        ("{c}/images/{n}.png", "{c}/mask_lung/{n}.png"),
        ("face-mask set/{c}/images/{n}.png", "face-mask set/{c}/masks/{n}.png"),
        ("with_mask {c}/x{n}.png", "with_mask {c}/x{n}_mask.png"),
        ("{c}/x{n}.png", "{c}/x{n}_lungmask.png"),
        ("{c}/x{n}.png", "{c}/x{n}_lung_mask.png"),
        ("{c}/x{n}.png", "{c}/x{n} mask.png"),
        ("{c}/x{n}.png", "{c}/x{n}.mask.png"),
        ("{c}/x{n}.png", "{c}/mask_x{n}.png"),
        ("{c}/x{n}.jpg", "{c}/x{n}_mask.jpg"),
        ("{c}/ISIC_{n}.jpg", "{c}/ISIC_{n}_superpixels.png"),
        ("{c}/{n}.jpg", "{c}_mask/{n}.png"),
        ("{c}/s1/{n}.jpg", "Masks {c}/s1/{n}_mask.png"),
    ],
)
def test_masks_are_left_out(pair: tuple[str, str]) -> None:
    names = [each.format(c=c, n=n) for each in pair for c in "ab" for n in range(3)]
    layout = read_layout(names, "s")
    assert {(f.name, f.label[-1]) for f in layout.files} == {
        (pair[0].format(c=c, n=n), c) for c in "ab" for n in range(3)
    }
    assert {why for why, _ in layout.left_out} == {"a mask of another image"}
    assert len(layout.left_out) == 6


@pytest.mark.parametrize(
    ("folders", "told"),
    [
        (("images", "masks"), "images"),
        (("train/images", "train/masks", "val/images", "val/masks"), "images"),
        (("images/train", "masks/train", "images/val", "masks/val"), "train, val"),
        (("train", "train_masks"), "train"),
        (("dev_images", "dev_masks"), "dev_images"),
        (("JPEGImages", "Annotations"), "JPEGImages"),
    ],
)
def test_pictures_and_masks_alone_have_no_classes(folders: tuple[str, ...], told: str) -> None:
    names = [f"{folder}/{n}.png" for folder in folders for n in range(3)]
    with pytest.raises(DataError) as caught:
        read_layout(names, "photos")
    problem = f"photos: its folders {told} hold images, not one folder a class"
    assert caught.value.problem == problem


def test_a_validation_split_without_classes() -> None:
    """As of Tiny ImageNet: its classes are in a text file."""
    names = [f"train/n{c}/images/n{c}_{n}.JPEG" for c in range(3) for n in range(3)]
    names += [*(f"val/images/{n}.JPEG" for n in range(3)), "val/val_annotations.txt"]
    with pytest.raises(DataError) as caught:
        read_layout([*names, "test/images/0.JPEG"], "photos")
    assert caught.value.problem == (
        "photos/val: its folders images hold images, not one folder a class"
    )
    assert "folders of their classes, or move photos/val away" in caught.value.fix


@pytest.mark.parametrize(
    ("folders", "told"),
    [
        (("cat_train", "cat_val", "dog_train", "dog_val"), ("cat_train", "cat_val", "cat")),
        (("Train Dog", "Train Cat", "Test Cat"), ("Test Cat", "Train Cat", "cat")),
    ],
)
def test_classes_that_differ_by_the_name_of_a_split(
    folders: tuple[str, ...], told: tuple[str, str, str]
) -> None:
    names = [f"{folder}/{n}.jpg" for folder in folders for n in range(2)]
    with pytest.raises(DataError) as caught:
        read_layout(names, "photos")
    one, two, rest = told
    assert caught.value.problem == (
        f"photos: its folders {one} and {two} differ by the name of a split alone"
    )
    assert f"/{rest}; or run again with --classes outer" in caught.value.fix
    assert {f.label for f in read_layout(names, "photos", "outer").files} == {*folders}
    alone = [f"{label}/1.jpg" for label in ("steam train", "test tube", "train station", "tube")]
    assert len(read_layout(alone, "photos").files) == 4


@pytest.mark.parametrize(
    "copy",
    [
        *(
            "Cat - Copy",
            "Cat - Copy (2)",
            "Cat copy",
            "Cat copy 2",
            "cat_copy",
            "Cat (1)",
            "cat(1)",
        ),
        *("Cat (copy)", "Cat (another copy)", "Cat (3rd copy)", "Copy of Cat", "Kopie von Cat"),
        *("Cat - Kopie", "Cat - 복사본", "Cat — копия"),
    ],
)
def test_a_folder_that_is_called_as_a_copy(copy: str) -> None:
    names = ["Cat/1.jpg", f"{copy}/1.jpg", "Dog/1.jpg"]
    with pytest.raises(DataError) as caught:
        read_layout(names, "s")
    assert caught.value.problem == f's: its folder "{copy}" is called as a copy of "Cat" is'
    assert "--classes outer" in caught.value.fix
    assert {f.label for f in read_layout(names, "s", "outer").files} == {"Cat", copy, "Dog"}


@pytest.mark.parametrize(
    "other", ["Cat 2", "Cat2", "Photocopy", "Cat (wild)", "Copycat", "Catcopy"]
)
def test_a_class_that_is_no_copy(other: str) -> None:
    names = ["Cat/1.jpg", f"{other}/1.jpg", "Photo/1.jpg"]
    assert {f.label for f in read_layout(names, "s").files} == {"Cat", other, "Photo"}


def test_copies_without_what_they_are_of_are_classes() -> None:
    names = ["Cat (1)/1.jpg", "Cat (2)/1.jpg"]
    assert {f.label for f in read_layout(names, "s").files} == {"Cat (1)", "Cat (2)"}


def test_a_class_may_be_called_mask() -> None:
    names = [f"{label}/{n}.png" for label in ("mask", "no_mask", "bad_mask") for n in range(3)]
    layout = read_layout([*names, "mask/x_mask.png"], "s")
    assert {f.label for f in layout.files} == {"mask", "no_mask", "bad_mask"}
    assert layout.left_out == []


def test_masks_of_two_kinds_are_no_classes() -> None:
    kinds = ("images", "infection masks", "lung masks")
    names = [f"{c}/{kind}/{n}.png" for c in ("COVID", "Normal") for kind in kinds for n in range(3)]
    layout = read_layout(names, "s")
    assert Counter(f.label for f in layout.files) == {"COVID": 3, "Normal": 3}
    assert layout.left_out == [
        ("a mask of another image", name) for name in names if "masks" in name
    ]


@pytest.mark.parametrize(
    "names",
    [
        ["face/1.jpg", "face/2.jpg", "face_mask/1.jpg", "face_mask/2.jpg"],
        ["face/1.jpg", "face_mask/1.jpg", "face_mask/2.jpg", "tree/1.jpg"],
        ["with_mask/1-with-mask.jpg", "without_mask/1.jpg"],
        ["with_mask/with_mask_1.jpg", "without_mask/without_mask_1.jpg", "with_mask/1.jpg"],
        ["images/with_mask/1.jpg", "images/without_mask/1.jpg", "images/none/1.jpg"],
        ["train/mask/images/1.jpg", "train/face/images/1.jpg"],
    ],
)
def test_a_class_that_is_called_as_masks_are(names: list[str]) -> None:
    layout = read_layout(names, "s")
    assert (len(layout.files), layout.left_out) == (len(names), [])


def test_files_that_are_no_images_by_their_names() -> None:
    names = ["images/a/1.jpg", "images/b/1.dat", "images/b/2", "README.md", "labels/a/1.TXT"]
    layout = read_layout(names, "s")
    assert {f.name for f in layout.files} == {"images/a/1.jpg", "images/b/1.dat", "images/b/2"}
    assert {f.label for f in layout.files} == {"a", "b"}
    assert layout.left_out == [
        ("a .md file, no image", "README.md"),
        ("a .txt file, no image", "labels/a/1.TXT"),
    ]


def test_a_test_folder() -> None:
    flat = read_test(["1.jpg", "2.jpg"], ["Cat", "Dog"])
    assert placed(flat) == {n: ("test", "", "", n) for n in ("1.jpg", "2.jpg")}
    labelled = read_test(["Test/cat/1.jpg", "Test/Bird/2.jpg"], ["Cat", "Dog"])
    assert placed(labelled) == {
        "Test/cat/1.jpg": ("test", "Cat", "", "cat/1.jpg"),
        "Test/Bird/2.jpg": ("test", "Bird", "", "Bird/2.jpg"),
    }
    strange = read_test(["north/1.jpg", "south/1.jpg"], ["Cat", "Dog"])
    assert placed(strange) == {
        f"{side}/1.jpg": ("test", "", "", f"{side}/1.jpg") for side in ("north", "south")
    }
    assert strange.notes == [
        "the test's folders north, south are called as no class is: its images are taken as "
        "unlabelled"
    ]
