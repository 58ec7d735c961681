"""What a feature value may be, and the matrix that models get."""

import numpy as np
import pytest

from models.features import MAX_CATEGORIES, Coder, category_text, check_row, frequent
from models.spec import Feature, ModelSpec

SPEC = ModelSpec(
    name="m",
    task="regression",
    features=(Feature(name="n"), Feature(name="c", type="categorical")),
)


def test_a_row_is_in_the_order_of_the_spec() -> None:
    """Producers may write features in any order."""
    assert check_row(SPEC, {"c": "x", "n": 3}) == (3.0, "x")


def test_null_is_a_missing_value_and_not_refused() -> None:
    assert check_row(SPEC, {"n": None, "c": None}) == (None, None)


@pytest.mark.parametrize(
    ("features", "sentence"),
    [
        ({"n": 1}, "missing: 'c'"),
        ({"n": 1, "c": "x", "z": 1}, "not in the spec: 'z'"),
        ({"n": "1", "c": "x"}, "'n' is str"),
        ({"n": True, "c": "x"}, "'n' is bool"),
        ({"n": [1], "c": "x"}, "'n' is list"),
        ({"n": float("nan"), "c": "x"}, "not finite"),
        ({"n": float("-inf"), "c": "x"}, "not finite"),
        ({"n": 10**400, "c": "x"}, "not finite"),
        ({"n": 1, "c": 1.5}, "a category is"),
        ({"n": 1, "c": 2**60}, "a category is"),
        ({"n": 1, "c": float("nan")}, "a category is"),
        ({"n": 1, "c": "x" * 300}, "at most 256"),
        ({"n": 1, "c": {}}, "'c' is dict"),
    ],
)
def test_a_row_that_does_not_fit_the_spec_is_refused(
    features: dict[str, object], sentence: str
) -> None:
    with pytest.raises(ValueError, match=sentence):
        check_row(SPEC, features)


def test_a_category_has_one_spelling() -> None:
    """JSON does not tell 3 from 3.0, so neither may we."""
    assert category_text(3) == category_text(3.0) == category_text("3") == "3"


def test_a_category_that_training_did_not_see_has_a_code_of_its_own() -> None:
    coder = Coder.fit(SPEC, [(1.0, "a"), (2.0, "a"), (3.0, "b")])

    matrix = coder.matrix([(None, "b"), (5.0, "new"), (6.0, None)])

    np.testing.assert_array_equal(matrix, [[np.nan, 1], [5, 2], [6, np.nan]])


def test_numbers_alone_give_the_same_matrix_with_and_without_nulls() -> None:
    """The short way for rows without nulls is only a short way."""
    coder = Coder((None, None))

    whole = coder.matrix([(1.0, 2.0), (3.0, 4.0)])

    np.testing.assert_array_equal(whole, [[1, 2], [3, 4]])
    np.testing.assert_array_equal(coder.matrix([(1.0, 2.0), (3.0, None)])[0], whole[0])


def test_rare_categories_beyond_the_limit_are_left_out() -> None:
    values = [str(i) for i in range(MAX_CATEGORIES + 5)] + ["7"]

    assert len(frequent(values)) == MAX_CATEGORIES
    assert frequent(values)[0] == "7"
