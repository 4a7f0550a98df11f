"""A table of labels is read in any dialect, or the error says how to write it."""

import csv
import io
import re
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from weighin.errors import DataError
from weighin.label_csv import NO_CLASS, Columns, Labels, Row, read_labels, split_of
from weighin.text_table import read_table

PAIRS = [("a.jpg", "Glass"), ("b.jpg", "Metal"), ("c.jpg", "Glass")]


def read(folder: Path, text: str | bytes, columns: Columns | None = None) -> Labels:
    path = folder / "labels.csv"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return read_labels(path, columns or Columns())


def pairs(labels: Labels) -> list[tuple[str, str]]:
    return [(row.filename, row.label) for row in labels.rows]


@pytest.mark.parametrize(
    "text",
    [
        "filename,class\na.jpg,Glass\nb.jpg,Metal\nc.jpg,Glass\n",
        "Filename , CLASS\r\na.jpg, Glass\r\nb.jpg, Metal\r\nc.jpg , Glass \r\n",
        "label;File Name\nGlass;a.jpg\nMetal;b.jpg\nGlass;c.jpg",
        "sep=;\nlabel;file\nGlass;a.jpg\nMetal;b.jpg\nGlass;c.jpg",
        '"sep=\t"\r\nImage\tTarget\r\na.jpg\tGlass\r\nb.jpg\tMetal\r\nc.jpg\tGlass\r\n',
        "\n\n \n,,\nfilename,class,\na.jpg,Glass,\nb.jpg,Metal,\nc.jpg,Glass,\n\n,,\n",
        "img|breed\na.jpg|Glass\nb.jpg|Metal\nc.jpg|Glass\n",
        "filename class\na.jpg Glass\nb.jpg   Metal\nc.jpg Glass\n",
        'filename,class\n"a.jpg","Glass"\n"b.jpg", "Metal"\nc.jpg,Glass\n',
        "\ufefffilename,class,Usage\na.jpg,Glass,Public\nb.jpg,Metal,Private\nc.jpg,Glass,Public\n",
        "a.jpg,Glass\nb.jpg,Metal\nc.jpg,Glass\n",
        "Glass;a.jpg\nMetal;b.jpg\nGlass;c.jpg\n",
        "0,1\na.jpg,Glass\nb.jpg,Metal\nc.jpg,Glass\n",
        ",image,label\n0,a.jpg,Glass\n1,b.jpg,Metal\n2,c.jpg,Glass\n",
        "image,label\n1,a.jpg,Glass\n2,b.jpg,Metal\n3,c.jpg,Glass\n",  # as R writes it
        "id,filename,note,class\n9,a.jpg,,Glass\n9,b.jpg,x,Metal\n9,c.jpg,,Glass\n",
        "photo,label,class_name\na.jpg,3,Glass\nb.jpg,4,Metal\nc.jpg,3,Glass\n",
        "photo,what\na.jpg,Glass\nb.jpg,Metal\nc.jpg,Glass\n",
        "thing,what,constant\na.jpg,Glass,1\nb.jpg,Metal,1\nc.jpg,Glass,1\n",
        "image,Glass,Metal\na.jpg,1,0\nb.jpg,0,1\nc.jpg,1,0\n",
        ",image,Glass,Metal,Paper\n0,a.jpg,1.0,0.0,0.0\n1,b.jpg,0.0,1.0,0.0\n2,c.jpg,1.0,,\n",
        "image,Glass,Metal\na.jpg,True,False\nb.jpg,False,True\nc.jpg,True,False\n",
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_a_dialect(tmp_path: Path, text: str, encoding: str) -> None:
    labels = read(tmp_path, text.encode(encoding))
    assert pairs(labels) == PAIRS
    assert labels.left_out == Counter()
    assert labels.by_name() == dict(PAIRS)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("001,cat\n002,dog\n003,cat\n", [("001", "cat"), ("002", "dog"), ("003", "cat")]),
        ("001,cat\n002,dog\n", [("001", "cat"), ("002", "dog")]),
        ("im0,Fox\nim1,Dog\nim2,Cat\n", [("im0", "Fox"), ("im1", "Dog"), ("im2", "Cat")]),
        (
            "Fox;x/im0\nDog;y/im1\nDog;y/im2\n",
            [("x/im0", "Fox"), ("y/im1", "Dog"), ("y/im2", "Dog")],
        ),
        ("deadbee5,Fox\n0d15ea5e,Dog\n", [("deadbee5", "Fox"), ("0d15ea5e", "Dog")]),
        ("foto2,art2\nim0,Dog\nim1,Dog\n", [("im0", "Dog"), ("im1", "Dog")]),
        ("id,breed\n001,1\n002,2\n", [("001", "1"), ("002", "2")]),
        (
            '"a b.jpg" 0\n"c d.jpg" 1\ne.jpg 0\n',
            [("a b.jpg", "0"), ("c d.jpg", "1"), ("e.jpg", "0")],
        ),
        ("x/1.jpg 0\nx/2.jpg 1\n", [("x/1.jpg", "0"), ("x/2.jpg", "1")]),
        ('f,class\n"a, b.jpg","x, y"\n', [("a, b.jpg", "x, y")]),
        ('f,class\n"a ""b"".jpg",x\n', [('a "b".jpg', "x")]),
        ('filename,class\na "b".jpg,x\n', [('a "b".jpg', "x")]),
        ("filename;class\na,b.jpg;x\nc,d.jpg;y\n", [("a,b.jpg", "x"), ("c,d.jpg", "y")]),
        ("class\tname\nx y\ta.jpg\n", [("a.jpg", "x y")]),
        ("filename,class\n", []),
    ],
)
def test_values_are_kept(tmp_path: Path, text: str, wanted: list[tuple[str, str]]) -> None:
    assert pairs(read(tmp_path, text)) == wanted


@pytest.mark.parametrize(
    ("text", "encoding", "note"),
    [
        ("filename,class\ncafé.jpg,Fläche\n", "cp1252", ('it is read as CP1252, such as "café"',)),
        ("filename,class\n고양이.jpg,유리\n", "cp949", ('it is read as EUC-KR, such as "고양이"',)),
        ("filename,class\n고양이.jpg,똠방\n", "cp949", ('it is read as CP949, such as "고양이"',)),
        ("filename,class\n1.jpg,紙くず\n", "cp932", ('it is read as CP932, such as "紙くず"',)),
        ("filename,class\n1.jpg,猫\n", "cp932", ('it is read as SHIFT-JIS, such as "猫"',)),
        (
            "filename,class\n1.jpg,金属\n2.jpg,纸张\n",
            "gbk",
            ('it is read as GB2312, such as "金属"',),
        ),
        (
            "filename,class\n1.jpg,鹦鹉\n2.jpg,蝙蝠\n",  # the bat alone could be Cyrillic, too
            "gbk",
            ('it is read as GB2312, such as "鹦鹉"',),
        ),
        (
            "filename,class\n1.jpg,Стекло\n2.jpg,Бумага\n",
            "cp1251",
            ('it is read as CP1251, such as "Стекло"',),
        ),
        (
            "filename,class\n1.jpg,ПЭТ-бутылка\n2.jpg,«скляний бій» №2\n",
            "cp1251",
            ('it is read as CP1251, such as "ПЭТ"',),
        ),
        (
            "filename,class\n1.jpg,Größe\n2.jpg,“née”\n",
            "cp1252",
            ('it is read as CP1252, such as "Größe"',),
        ),
        ("filename,class\n1.jpg,Driver’s\n", "cp1252", ("it is read as CP1252",)),
        ("filename,class\n1.jpg,Żółw\n", "cp1250", ('it is read as CP1252, such as "ó³w"',)),
        ("filename,class\n고양이.jpg,café\n", "utf-8", ()),
        ("filename,class\n고양이.jpg,café\n", "utf-16", ("it is read as UTF-16",)),
    ],
)
def test_an_encoding_is_guessed_and_said(
    tmp_path: Path, text: str, encoding: str, note: tuple[str, ...]
) -> None:
    labels = read(tmp_path, text.encode(encoding))
    if encoding != "cp1250":  # which nothing tells from CP1252 but what is said
        assert pairs(labels) == [tuple(line.split(",")) for line in text.splitlines()[1:]]
    assert labels.notes == note


def test_what_was_guessed_is_said(tmp_path: Path) -> None:
    text = "Scene,Photo,Kind,Split\ns1,a.jpg,Glass,VAL\ns1,b.jpg,Metal,train\n"
    labels = read(tmp_path, text, Columns(label="kind"))
    assert labels.rows == [
        Row("a.jpg", "Glass", "s1", "validation"),
        Row("b.jpg", "Metal", "s1", "train"),
    ]
    assert labels.notes == (
        'file names from "Photo", classes from "Kind", groups from "Scene", splits from "Split"',
    )
    assert read(tmp_path, "a.jpg,x\nb.jpg,y\n").notes == (
        "it has no header",
        'file names from "1", classes from "2"',
    )


@pytest.mark.parametrize(
    ("value", "split"),
    [
        *(("train", "train"), ("Training", "train"), ("TRAIN1", "train"), ("tr", "train")),
        *(("val", "validation"), ("Validation", "validation"), ("dev", "validation")),
        *(("test", "test"), (" Testing", "test"), ("Public", ""), ("", ""), ("tree", "")),
        *(("Entrenamiento", "train"), ("prueba", "test"), ("验证集", "validation")),
    ],
)
def test_the_names_of_splits(value: str, split: str) -> None:
    assert split_of(value) == split


@pytest.mark.parametrize(
    ("header", "third"),
    [("y,no", "0,1"), ("id,index", "0,1"), ("yes,no", "0,1"), ("tag,set,scene", "0,1,0")],
)
def test_a_class_of_a_one_hot_table_may_be_called_as_another_column_is(
    tmp_path: Path, header: str, third: str
) -> None:
    rest = ",0" * (header.count(",") - 1)
    text = f"filename,{header}\na.jpg,1,0{rest}\nb.jpg,0,1{rest}\nc.jpg,{third}\n"
    one, two = header.split(",")[:2]
    assert pairs(read(tmp_path, text)) == [("a.jpg", one), ("b.jpg", two), ("c.jpg", two)]


def test_an_index_beside_one_hot_columns_is_no_class(tmp_path: Path) -> None:
    for index in ("no", "index", ""):
        text = f"{index},image,A,B\n0,a.jpg,1,0\n1,b.jpg,0,1\n"
        assert pairs(read(tmp_path, text)) == [("a.jpg", "A"), ("b.jpg", "B")]


@pytest.mark.parametrize("again", ["./a.jpg", ".\\a.jpg", "././a.jpg"])
def test_a_file_under_two_names_comes_once(tmp_path: Path, again: str) -> None:
    labels = read(tmp_path, f"filename,class\na.jpg,x\n{again},x\n./b/./c.jpg,y\n.d.jpg,y\n")
    assert pairs(labels) == [("a.jpg", "x"), ("b/c.jpg", "y"), (".d.jpg", "y")]
    assert labels.left_out == {"listed twice": 1}


@pytest.mark.parametrize(
    ("column", "splits"),
    [
        ("is_valid", ["validation", "train", ""]),
        ("Is Test", ["test", "train", ""]),
        ("is_train", ["train", "", ""]),
    ],
)
def test_splits_of_yes_and_no(tmp_path: Path, column: str, splits: list[str]) -> None:
    text = f"filename,class,{column}\na.jpg,x,True\nb.jpg,x,0\nc.jpg,x,\n"
    labels = read(tmp_path, text)
    assert [row.split for row in labels.rows] == splits
    assert labels.no_splits == ({"0": 1} if column == "is_train" else {})
    assert labels.notes == (
        f'file names from "filename", classes from "class", splits from "{column}"',
    )


def test_a_file_in_two_splits_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        read(tmp_path, "filename,class,split\na.jpg,x,train\na.jpg,x,val\n")
    path = tmp_path / "labels.csv"
    assert caught.value.problem == f'{path} lists a.jpg twice, as "train" and as "validation"'
    assert caught.value.fix == f"remove the wrong row from {path}"


def test_boxes_are_no_classes_of_whole_images(tmp_path: Path) -> None:
    header = "filename,width,class,xmin,ymin,xmax,ymax\n"
    one = "a.jpg,9,x,1,1,5,5\nb.jpg,9,y,1,1,5,5\n"
    assert pairs(read(tmp_path, header + one)) == [("a.jpg", "x"), ("b.jpg", "y")]
    with pytest.raises(DataError) as caught:
        read(tmp_path, f"{header}{one}a.jpg,9,y,2,2,5,5\n")
    assert caught.value.problem == (
        f"{tmp_path}/labels.csv has boxes (xmin, xmax), 2 of them in a.jpg; a table is of whole "
        "images"
    )
    assert "COCO" in caught.value.fix


@pytest.mark.parametrize(
    ("title", "header"),
    [
        ("My labels 2024;;", "filename;class;"),
        ("My labels 2024\n", "filename,class"),
        ("Labels", "image,label"),
        ("# made by X, in 2024\n# of all", "name,class"),
        ("My labels 2024;;", "Bild;Sorte;"),
        ("My labels, of 2024", "Bild,Sorte"),
    ],
)
def test_a_title_above_the_header_is_left_out(tmp_path: Path, title: str, header: str) -> None:
    mark = ";" if ";" in header else ","
    rows = [("a.jpg", "x"), ("b.jpg", "y"), ("c.jpg", "x")]
    lines = [mark.join(row) for row in rows]
    columns = Columns(label="Sorte") if header == "Bild,Sorte" else None
    labels = read(tmp_path, "\n".join((title, header, *lines)), columns)
    assert pairs(labels) == rows
    said = title.splitlines()[0].strip(";").replace(",", "")
    assert labels.notes[0] == f'what stands above its header is not read: "{said}"'


def test_a_row_of_names_that_columns_may_have_is_no_header(tmp_path: Path) -> None:
    text = "Original,class\nx.jpg,cat\nphoto,picture\n"
    assert pairs(read(tmp_path, text)) == [("x.jpg", "cat"), ("photo", "picture")]
    assert pairs(read(tmp_path, "a.jpg,tag\nphoto,tag\n")) == [("a.jpg", "tag"), ("photo", "tag")]
    empty = "file;;\nann;cat;\nbob;dog;\neve;dog;\n"  # a header that leaves the classes out
    three = [("ann", "cat"), ("bob", "dog"), ("eve", "dog")]
    assert pairs(read(tmp_path, empty, Columns("1", "2"))) == three
    rows = "class\na.jpg,photo\nb.jpg,image\n"  # as R writes it
    assert pairs(read(tmp_path, rows)) == [("a.jpg", "photo"), ("b.jpg", "image")]


def test_columns_are_named_or_numbered(tmp_path: Path) -> None:
    text = "x.jpg,a.jpg,Glass,s1\ny.jpg,b.jpg,Metal,s2\n"
    labels = read(tmp_path, text, Columns("2", "3", "4"))
    assert labels.rows == [Row("a.jpg", "Glass", "s1"), Row("b.jpg", "Metal", "s2")]
    named = read(tmp_path, "filename,class,A,B\n" + text, Columns("A", "b", "CLASS"))
    assert named.rows == [Row("Glass", "s1", "a.jpg"), Row("Metal", "s2", "b.jpg")]


def test_rows_left_out_are_counted(tmp_path: Path) -> None:
    text = "filename,class\na.jpg,Glass\n,Glass\nb.jpg,\na.jpg,Glass\na.jpg,Metal\nc.jpg\n"
    labels = read(tmp_path, text)
    assert pairs(labels) == [("a.jpg", "Glass"), ("a.jpg", "Metal")]
    assert labels.left_out == {"no file name": 1, "no class": 2, "listed twice": 1}
    hot = read(tmp_path, "image,A,B\na,1,0\nb,1,1\nc,0,0\nd,0,1\ne,0,1\n")
    assert pairs(hot) == [("a", "A"), ("d", "B"), ("e", "B")]
    assert hot.left_out == {"several classes": 1, "no class": 1}


def test_a_file_of_two_classes_is_refused_where_one_is_needed(tmp_path: Path) -> None:
    labels = read(tmp_path, "filename,class\na.jpg,Glass\nb.jpg,Glass\na.jpg,Metal\n")
    with pytest.raises(DataError) as caught:
        labels.by_name()
    assert 'lists a.jpg twice, as "Glass" and as "Metal"' in caught.value.problem
    assert str(tmp_path / "labels.csv") in caught.value.fix


def test_no_labels_are_refused_where_some_are_needed(tmp_path: Path) -> None:
    labels = read(tmp_path, "filename,class\n")
    assert labels.by_name(needed=False) == {}
    with pytest.raises(DataError, match=r"labels\.csv holds no labels"):
        labels.by_name()


@pytest.mark.parametrize(
    ("text", "problem", "fix"),
    [
        (b"", "is empty", "filename,class"),
        (b"\n \n,,\n", "is empty", "filename,class"),
        (b"\xff\xfe\0", "is not text", "UTF-8"),
        (b"\x81\x8d\x8f,\x90", "is not text", "UTF-8"),
        (b"PK\x03\x04...", "is an Excel workbook", "save it as CSV"),
        (b"\xd0\xcf\x11\xe0...", "is an Excel workbook", "save it as CSV"),
        (b"PAR1...", "is a Parquet file", "save it as CSV"),
        (b"\x1f\x8b...", "is a gzip file", "save it as CSV"),
        (b"a,b\n1,2\n", "it has a, b", "--filename-column, --class-column"),
        (b"filename\na.jpg\n", "it has filename", "--class-column"),
        (b"filename,class,Class\na.jpg,x,z\n", 'two columns "class"', "--class-column"),
        (b"file;class;file\na.jpg;x;b.jpg\n", 'two columns "file"', "--filename-column"),
        (b"filename,A,B\na.jpg,x,y\nb.jpg,z,x\n", "it has filename, A, B", "--class-column"),
        (b"filename,class\na,b.jpg,x\nc.jpg,y\n", "line 2: 3 values for 2 columns", "quotes"),
        (b"a.jpg 0\nb.jpg 1\na b.jpg 1\n", "line 3: 3 values for 2 columns, parted by blanks", '"'),
        (
            b"my a.jpg 0\nmy b.jpg 1\nmy c.jpg 1\n1 d.jpg 5\n",
            "it has 1, 2, 3; its values are parted by blanks: one that holds some needs quotes; "
            "it has no header",
            "--class-column",
        ),
        (b'filename,class\na.jpg,"x\nb.jpg,y\n', "line 2: a quote that nothing closes", "quote"),
        (b'f,class\na.jpg,x\nb.jpg,"y\nc.jpg,"z"\n', "line 3: ',' expected", "quote"),
        (b"f,class\n\na.jpg,x\0\n", 'line 3: a byte 0 in the class "x\\x00"', "remove it"),
        (b'sep=;\n\nf;class\n"a"b;x\n', "line 4: ", "quote"),
        (b"filename,class\na.jpg," + b"x" * 140_000, "line 2: field larger", "save the table"),
    ],
)
def test_errors(tmp_path: Path, text: bytes, problem: str, fix: str) -> None:
    with pytest.raises(DataError) as caught:
        read(tmp_path, text)
    assert caught.value.problem.startswith(str(tmp_path / "labels.csv"))
    assert problem in caught.value.problem
    assert fix in caught.value.fix


@pytest.mark.parametrize(
    ("columns", "options"),
    [
        (None, ""),
        (
            Columns(),
            "name the columns that hold file names and classes (--filename-column, "
            "--class-column), or ",
        ),
    ],
)
def test_a_fix_names_options_only_where_there_are_some(
    tmp_path: Path, columns: Columns | None, options: str
) -> None:
    path = tmp_path / "truth.csv"
    path.write_text("photo,gt,conf\na.jpg,x,1\nb.jpg,y,2\n")
    with pytest.raises(DataError) as caught:
        read_labels(path, columns)
    assert caught.value.problem == (
        f"{path} has no column that is known to hold classes; it has photo, gt, conf"
    )
    assert caught.value.fix == f"{options}call one filename and one class in {path}"


def test_a_column_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        read(tmp_path, "filename,class\na.jpg,x\n", Columns(label="kind"))
    assert 'has no column "kind"; it has filename, class' in caught.value.problem


def test_a_table_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"cannot read .*none\.csv: No such file"):
        read_labels(tmp_path / "none.csv")


def test_a_table_of_other_things(tmp_path: Path) -> None:
    path = tmp_path / "mapping.csv"
    path.write_text("Category;Class\nBottle;Glass\nCan\n")
    table = read_table(path)
    assert table.records() == [
        {"Category": "Bottle", "Class": "Glass"},
        {"Category": "Can", "Class": ""},
    ]
    assert (table.lines, table.notes) == ([2, 3], ())


word = st.text(
    st.characters(codec="utf-8", exclude_categories=["C", "Z"]), min_size=1, max_size=9
).filter(
    lambda text: (
        text == text.strip() and not re.match(r"sep=|\./|\.\\", text) and text not in NO_CLASS
    )
)
rows = st.lists(st.tuples(word, word), min_size=1, max_size=9, unique_by=lambda row: row[0])


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows,
    st.sampled_from(",;\t|"),
    st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-32"]),
    st.sampled_from(["\n", "\r\n", "\r"]),
    st.sampled_from(["", "\n\n", "sep={}\n"]),
    st.sampled_from(["", " "]),
    st.sampled_from([("filename", "class"), ("Image", "LABEL"), ("ID", "Target")]),
    st.booleans(),
)
def test_a_table_in_any_dialect_gives_its_rows(
    tmp_path: Path,
    rows: list[tuple[str, str]],
    delimiter: str,
    encoding: str,
    newline: str,
    before: str,
    blank: str,
    header: tuple[str, str],
    quoted: bool,
) -> None:
    out = io.StringIO()
    quoting = csv.QUOTE_ALL if quoted else csv.QUOTE_MINIMAL
    writer = csv.writer(out, delimiter=delimiter, lineterminator="\n", quoting=quoting)
    writer.writerow(header)
    for name, label in rows:
        writer.writerow((name + ".jpg", label))
    text = out.getvalue()
    if blank and not any(set(name + label) & set('"' + delimiter) for name, label in rows):
        text = text.replace(delimiter, delimiter + blank)
    text = before.format(delimiter) + text
    labels = read(tmp_path, text.replace("\n", newline).encode(encoding))
    assert pairs(labels) == [(f"{name}.jpg", label) for name, label in rows]


@pytest.mark.parametrize("error", ["#REF!", "#NAME?", "#VALUE!", "#DIV/0!", "<NA>"])
def test_an_error_of_a_spreadsheet_is_no_class(tmp_path: Path, error: str) -> None:
    labels = read(tmp_path, f"filename,class\na.jpg,Glass\nb.jpg,{error}\nc.jpg,#1\n")
    assert pairs(labels) == [("a.jpg", "Glass"), ("c.jpg", "#1")]
    assert labels.left_out == {"no class": 1}


@pytest.mark.parametrize(
    "text",
    [
        "1 a/a.jpg\n2 a/b.jpg\n3 b/c.jpg\n",  # CUB-200-2011's images.txt: its classes lie elsewhere
        ",photo\n0,a.jpg\n1,b.jpg\n2,c.jpg\n",
    ],
)
def test_the_numbers_of_rows_are_no_classes(tmp_path: Path, text: str) -> None:
    with pytest.raises(DataError, match="has no column that is known to hold classes"):
        read(tmp_path, text)


@pytest.mark.parametrize("suffix", [".jsonl", ".ndjson", ".JSONL"])
def test_json_lines(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"metadata{suffix}"
    path.write_text(
        '\ufeff{"file_name": "a.jpg", "label": "Glass", "split": "train"}\r\n\n'
        '{"file_name": "b\u2028c.jpg", "label": "Metal", "split": "test", "boxes": [1, 2]}\n'
        '{"file_name": "c.jpg", "label": null}\n'
    )
    labels = read_labels(path)
    assert labels.rows == [
        Row("a.jpg", "Glass", "", "train"),
        Row("b\u2028c.jpg", "Metal", "", "test"),
    ]
    assert labels.left_out == {"no class": 1}
    assert labels.notes[0] == "boxes: no plain values, not read"


def test_a_byte_0_in_a_class_of_json_lines_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "labels.jsonl"
    path.write_text('\n{"filename": "a.jpg", "class": "x\\u0000"}\n')
    with pytest.raises(DataError) as caught:
        read_labels(path)
    assert caught.value.problem == f'{path}, line 2: a byte 0 in the class "x\\x00"'
    assert caught.value.fix == f"remove it from {path}"


@pytest.mark.parametrize("line", ["[1]", "3", "{", '"a"', "a.jpg,Glass"])
def test_a_line_that_is_no_object(tmp_path: Path, line: str) -> None:
    path = tmp_path / "labels.jsonl"
    path.write_text('{"filename": "a.jpg", "class": "x"}\n' + line)
    with pytest.raises(DataError) as caught:
        read_labels(path)
    assert caught.value.problem == f"{path}, line 2: it is no JSON object"
    assert caught.value.fix == 'write each line as {"filename": "a.jpg", "class": "cat"}'


@pytest.mark.parametrize("both", ["cat|dog", "cat, dog", "dog;cat", "cat + dog", "['cat', 'dog']"])
def test_a_class_that_is_made_of_others_is_of_several(tmp_path: Path, both: str) -> None:
    one = ("['cat']", "['dog']") if both[0] == "[" else ("cat", "dog")
    rows = f'a.jpg,{one[0]}\nb.jpg,{one[1]}\nc.jpg,"{both}"\nd.jpg,"cat dog"\n'
    labels = read(tmp_path, f"filename,class\n{rows}")
    assert pairs(labels) == [("a.jpg", one[0]), ("b.jpg", one[1]), ("d.jpg", "cat dog")]
    assert labels.left_out == {"several classes": 1}


def test_labels_that_open_images_denies_are_left_out(tmp_path: Path) -> None:
    text = "filename,class,Confidence\na.jpg,cat,1\na.jpg,dog,0\nb.jpg,dog,1.0\n"
    labels = read(tmp_path, text)
    assert pairs(labels) == [("a.jpg", "cat"), ("b.jpg", "dog")]
    assert labels.left_out == {"its confidence is 0": 1}
    sure = read(tmp_path, "filename,class,confidence\na.jpg,cat,0\nb.jpg,dog,0.7\n")
    assert pairs(sure) == [("a.jpg", "cat"), ("b.jpg", "dog")]


def test_columns_of_0_and_1_that_never_change_are_no_classes(tmp_path: Path) -> None:
    labels = read(tmp_path, "photo,kind,old,new\na.jpg,cat,0,1\nb.jpg,dog,0,1\n")
    assert pairs(labels) == [("a.jpg", "cat"), ("b.jpg", "dog")]
    one = read(tmp_path, ",photo,old,new\n0,a.jpg,0,1\n1,b.jpg,0,1\n")
    assert pairs(one) == [("a.jpg", "new"), ("b.jpg", "new")]


def test_a_table_of_via_is_told(tmp_path: Path) -> None:
    text = "filename,region_count,region_id,region_shape_attributes,region_attributes\n"
    with pytest.raises(DataError) as caught:
        read(tmp_path, text + 'a.jpg,1,0,"{}","{""class"": ""cat""}"\n')
    assert caught.value.problem == f"{tmp_path}/labels.csv is a table of VIA, of regions"
    assert caught.value.fix == "export it from VIA as COCO"


@pytest.mark.parametrize("word", ["NA", "None", "null"])
def test_a_class_that_may_be_a_missing_one_is_said(tmp_path: Path, word: str) -> None:
    labels = read(tmp_path, f"filename,class\na.jpg,{word}\nb.jpg,Glass\nc.jpg,{word}\n")
    assert pairs(labels) == [("a.jpg", word), ("b.jpg", "Glass"), ("c.jpg", word)]
    assert labels.notes == (f'"{word}" is read as a class, not as a missing one',)


@pytest.mark.parametrize("missing", ["NULL", "N/A", "nan", "#N/A"])
def test_a_missing_class_is_none(tmp_path: Path, missing: str) -> None:
    labels = read(tmp_path, f"filename,class\na.jpg,None\nb.jpg,{missing}\n")
    assert pairs(labels) == [("a.jpg", "None")]
    assert labels.left_out == {"no class": 1}
