"""What a user reads when something is wrong: two lines and a number."""

import multiprocessing
import re
from concurrent.futures import ProcessPoolExecutor

import pytest

from weighin import errors
from weighin.errors import DataError, HiddenWorkError, NetworkError, WeighinError


def tree(root: type[WeighinError] = WeighinError) -> list[type[WeighinError]]:
    return [root, *(kind for child in root.__subclasses__() for kind in tree(child))]


def ours() -> list[type[WeighinError]]:
    return [kind for kind in tree() if kind.__module__ == errors.__name__]


def test_the_picture_of_the_tree_is_the_tree():
    drawn = re.findall(r"(\w+Error) +(\d+) ", errors.__doc__ or "")
    assert {name: int(code) for name, code in drawn} == {k.__name__: k.exit_code for k in ours()}
    assert len(drawn) == 12


def test_exit_codes_differ_and_keep_clear_of_bugs_and_wrong_usage():
    codes = [kind.exit_code for kind in ours()]
    assert sorted(codes) == list(range(3, 15))


def test_text():
    assert str(DataError("it is torn", "sew it")) == "it is torn\n  to fix: sew it"


def test_hidden_work_is_a_fault_of_the_network():
    assert HiddenWorkError.__bases__ == (NetworkError,)


def fail(kind: type[WeighinError]) -> None:
    raise kind("it is torn", "sew it")


def test_errors_cross_processes_whole():
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, spawn) as pool:
        for kind in ours():
            with pytest.raises(kind) as caught:
                pool.submit(fail, kind).result()
            assert type(caught.value) is kind
            assert (caught.value.problem, caught.value.fix) == ("it is torn", "sew it")
