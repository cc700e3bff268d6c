from __future__ import annotations

import pickle

import pytest

from rebalance.errors import InputError, RunError, nearest


def test_an_input_error_says_expected_got_and_fix() -> None:
    error = InputError("two ranks", "one", "start a second")
    assert str(error) == "expected two ranks; got one; start a second"
    assert (error.expected, error.got, error.fix) == ("two ranks", "one", "start a second")
    assert isinstance(error, ValueError)


def test_an_input_error_survives_a_worker_process() -> None:
    copy = pickle.loads(pickle.dumps(InputError("a", "b", "c")))
    assert type(copy) is InputError
    assert (str(copy), copy.expected, copy.got, copy.fix) == ("expected a; got b; c", "a", "b", "c")


def test_a_run_error_is_no_input_error() -> None:
    assert issubclass(RunError, RuntimeError)
    assert not issubclass(RunError, ValueError)


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("balanced_sofmax", "did you mean 'balanced_softmax'? valid: balanced_softmax, ce, ldam"),
        ("zzz", "valid: balanced_softmax, ce, ldam"),
        ("", "valid: balanced_softmax, ce, ldam"),
    ],
)
def test_advice_names_the_nearest_and_all_valid(name: str, advice: str) -> None:
    assert nearest(name, (valid for valid in ("ldam", "ce", "balanced_softmax"))) == advice


def test_valid_names_with_commas_or_blanks_are_quoted_so_that_each_can_be_told_from_the_next() -> None:
    assert nearest("cats", ["cat, wild", "cat"]) == "did you mean 'cat'? valid: 'cat', 'cat, wild'"
    assert nearest("x", ["hot dog", "cat"]) == "valid: 'cat', 'hot dog'"
