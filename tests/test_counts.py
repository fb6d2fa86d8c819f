"""Counts that are asked for."""

import numpy as np
import pytest

from ppl_gen.counts import check_count


@pytest.mark.parametrize("value", [1, 3, np.int64(2), np.uint8(1)])
def test_whole_numbers_pass(value):
    check_count(value, "n", "Model.sample")


@pytest.mark.parametrize("value", [0, -1, np.int64(0), 2.0, np.float64(1.0), "2", None, [1], True])
def test_what_is_no_count_is_refused(value):
    with pytest.raises(ValueError, match=r"Model\.sample: n is .*; expected a whole number, at"):
        check_count(value, "n", "Model.sample")
    with pytest.raises(ValueError, match="n is "):
        check_count(np.bool_(True), "n", "Model.sample")
