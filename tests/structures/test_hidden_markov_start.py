"""Where EM starts from decides what it can find."""

import numpy as np
import pytest

from ppl_gen import EM, HiddenMarkovModel
from ppl_gen.datasets import make_casino


@pytest.mark.parametrize("seed", range(3))
def test_codes_of_one_column_do_not_start_as_states_of_their_own(seed):
    rolls = make_casino(1000).frame[["roll"]].astype("category")
    # From clusters of the faces, each face in one state, EM would end at once where it is: as
    # zeros stay zeros. It must get past the parameters that made the rolls.
    em = EM(max_iter=300, tol=1e-6)
    model = HiddenMarkovModel(2, "categorical", random_state=seed, inference=em)
    model.fit(rolls)
    truth = HiddenMarkovModel(2, "categorical", init_params="", params="")
    truth.startprob_, truth.transmat_ = [2 / 3, 1 / 3], [[0.95, 0.05], [0.1, 0.9]]
    truth.emissionprob_ = np.array([[1 / 6] * 6, [0.1] * 5 + [0.5]])
    assert model.score(rolls) > truth.fit(rolls).score(rolls)
