"""What users pass to programs becomes the same numbers on either engine."""

import numpy as np
import pandas as pd
import pytest

from ppl_gen import dist, engines, plate, program, sample
from ppl_gen.engines.arguments import convert_argument


@program
def groups(group, y=None):
    with plate("group", 3):
        level = sample("level", dist.Normal(0.0, 1.0))
    with plate("row", len(group)):
        sample("y", dist.Normal(level[group], 1.0), obs=y)


@pytest.mark.parametrize("engine", ["numpyro", "pyro"])
@pytest.mark.parametrize("dtype", ["int8", "uint8", "uint16", "int32", "int64"])
def test_codes_of_any_integer_type_index(engine, dtype):
    codes = np.array([0, 2, 1, 1], dtype)
    level, y = np.array([-1.0, 0.5, 2.0]), np.array([0.1, 0.2, 0.3, 0.4])
    density = engines.get(engine).log_joint(
        groups.native(engine), (codes,), {"y": y}, {"level": level}
    )
    squares = (level**2).sum() + ((y - level[[0, 2, 1, 1]]) ** 2).sum()
    assert density == pytest.approx(-0.5 * squares - 3.5 * np.log(2.0 * np.pi), rel=1e-12)


def test_tables_become_arrays_and_settings_stay():
    given = {
        "frame": pd.DataFrame({"a": [1.0, 2.0]}),
        "codes": pd.Series(pd.Categorical(["u", "v"])).cat.codes,
        "flags": np.array([True, False]),
        "numbers": [1, 2.5],
        "size": np.int64(3),
        "name": "full",
        "nothing": None,
    }
    got = convert_argument("given", given, np.asarray)
    assert {name: getattr(value, "dtype", value) for name, value in got.items()} == {
        "frame": np.float64,
        "codes": np.int64,
        "flags": np.bool_,
        "numbers": np.float64,
        "size": 3,
        "name": "full",
        "nothing": None,
    }


def test_words_are_refused():
    with pytest.raises(TypeError, match=r"argument names has dtype .*encode categories"):
        convert_argument("names", np.array(["a", "b"]), np.asarray)
