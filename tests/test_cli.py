"""The command line writes what the library writes, and refuses in one line."""

import json
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

import ppl_gen
from ppl_gen.cli import app
from ppl_gen.datasets import load_asia, load_ecclesiastes, load_faithful, load_penguins


def run(*args):
    result = CliRunner().invoke(app, [str(arg) for arg in args])
    # Anything but a deliberate exit is a bug of ours, and would show a traceback.
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "faithful"
    result = run(
        "fit", "gaussian-mixture", "faithful", "--out", out, "--param", "n_components=2", "--seed=1"
    )
    assert result.exit_code == 0, result.output
    return out, result


def test_models_are_listed():
    result = run("models")
    assert result.exit_code == 0
    for name in ("GaussianMixture", "Mixture", "NaiveBayes"):
        kind = getattr(ppl_gen, name)
        (line,) = [line for line in result.output.splitlines() if f" {name} " in line]
        assert kind.density in line
        assert ", ".join(kind.methods) in line
    assert "naive bayes" in result.output


def test_fit_is_the_fit_of_the_library(fitted):
    out, result = fitted
    model = ppl_gen.load(out)
    data = load_faithful().frame
    expected = ppl_gen.GaussianMixture(2, random_state=1).fit(data)
    np.testing.assert_allclose(model.log_prob(data), expected.log_prob(data), rtol=1e-12)
    assert (out / "posterior.nc").is_file()
    summary = pd.read_csv(out / "summary.csv", index_col=0)
    assert list(summary.index) == list(expected.posterior_.summary().index)
    for name in summary.index:
        assert str(name) in result.stdout
    assert "GaussianMixture by em" in result.stdout
    assert str(out) in result.stdout.replace("\n", "")


def test_nothing_is_overwritten_unasked(fitted, tmp_path):
    out, _ = fitted
    before = (out / "manifest.json").read_bytes()
    result = run("fit", "gaussian-mixture", "faithful", "--out", out)
    assert result.exit_code == 2
    assert "exists; pass --overwrite" in result.stderr
    assert (out / "manifest.json").read_bytes() == before


def test_overwrite(tmp_path):
    for n_components in (1, 2):
        result = run(
            *("fit", "GaussianMixture", "faithful", "--out", tmp_path / "run", "--overwrite"),
            *("--param", f"n_components={n_components}", "--param", "covariance_type=diag"),
        )
        assert result.exit_code == 0, result.output
    model = ppl_gen.load(tmp_path / "run")
    assert (model.n_components, model.covariance_type) == (2, "diag")
    assert (tmp_path / "run" / "summary.csv").is_file()


def test_a_classifier_on_a_csv_with_words_and_holes(tmp_path):
    penguins = load_penguins()
    penguins.frame.to_csv(tmp_path / "birds.csv", index=False)
    result = run(
        *("fit", "naive_bayes", tmp_path / "birds.csv", "--target", "species"),
        *("--out", tmp_path / "run", "--method", "em"),
    )
    assert result.exit_code == 0, result.output
    model = ppl_gen.load(tmp_path / "run")
    assert (model.predict(penguins.X) == penguins.y).mean() > 0.9


def test_a_model_of_numbers_leaves_words_out_and_says_so(tmp_path):
    result = run("fit", "gaussian-mixture", "penguins", "--out", tmp_path / "run")
    assert result.exit_code == 0, result.output
    assert "warning: left out, for they hold no numbers: island, sex" in result.stderr
    names = json.loads((tmp_path / "run" / "manifest.json").read_text())
    assert "bill_length_mm" in json.dumps(names)


def test_columns(tmp_path):
    columns = ["bill_length_mm", "bill_depth_mm"]
    result = run(
        *("fit", "gaussian-mixture", "penguins", "--out", tmp_path / "run"),
        *("--columns", ", ".join(columns)),
    )
    assert result.exit_code == 0, result.output
    assert list(ppl_gen.load(tmp_path / "run").feature_names_in_) == columns


def test_settings_of_the_method(tmp_path):
    result = run(
        *("fit", "gaussian-mixture", "faithful", "--out", tmp_path / "run", "--method", "em"),
        *("--param", "inference__n_init=2"),
    )
    assert result.exit_code == 0, result.output
    assert ppl_gen.load(tmp_path / "run").inference.n_init == 2


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["gausian", "iris"], "unknown model 'gausian'; expected one of "),
        (["mixture", "nothing.csv"], "no file nothing.csv, and no data set of that name"),
        (
            ["mixture", "iris", "--method", "magic"],
            "cannot be fitted by 'magic'; expected one of em",
        ),
        (["mixture", "iris", "--target", "genus"], "iris has no column 'genus'; it has sepal"),
        (["mixture", "iris", "--columns", "petal"], "iris has no column 'petal'"),
        (["naive-bayes", "faithful"], "NaiveBayes predicts a column; pass --target"),
        (["mixture", "iris", "--param", "bogus=1"], "Invalid parameter 'bogus'"),
        (["mixture", "iris", "--param", "n_components"], "has no value; expected name=value"),
        (["mixture", "iris", "--param", "n_components=1000"], "n_components"),
        (["mixture", "iris", "--param", "n_components=many"], "n_components"),
    ],
)
def test_refusals_are_one_line(args, message, tmp_path):
    result = run("fit", *args, "--out", tmp_path / "run")
    assert result.exit_code == 2
    (line,) = result.stderr.splitlines()
    assert line.startswith("ppl-gen: ")
    assert message in line
    assert not list(tmp_path.iterdir())


def test_without_a_command_it_helps():
    result = run()
    assert "fit" in result.output
    assert "models" in result.output


def test_networks_are_fitted_to_all_columns(tmp_path):
    rows = load_asia().sample(200, random_state=0)
    rows.to_csv(tmp_path / "asia.csv", index=False)
    edges = "graph=[('smoke','lung'),('smoke','bronc'),('lung','dysp'),('bronc','dysp')]"
    columns = ["--columns", "smoke,lung,bronc", "--target", "dysp", "--param", edges]
    out = str(tmp_path / "model")
    run("fit", "bayesian-network", str(tmp_path / "asia.csv"), *columns, "--out", out)
    model = ppl_gen.load(tmp_path / "model")
    assert set(model.graph_) == {"smoke", "lung", "bronc", "dysp"}
    assert model.target == "dysp"


def test_a_network_is_told_of_by_its_training(tmp_path):
    result = run(
        *("fit", "normalizing-flow", "faithful", "--out", str(tmp_path / "flow")),
        *("--method", "maximum_likelihood", "--param", "inference__epochs=2"),
        *("--param", "n_transforms=1"),
    )
    assert result.exit_code == 0
    assert "loss" in result.output
    assert list(pd.read_csv(tmp_path / "flow" / "summary.csv")["epoch"]) == [1, 2]
    told = " ".join(result.output.split())
    assert "without uncertainty: training went to the end of its last epoch, 2," in told
    assert "Nothing speaks against using it." in told


def test_it_runs_as_a_module():
    told = subprocess.run(
        [sys.executable, "-m", "ppl_gen.cli", "--help"], capture_output=True, text=True, check=True
    )
    assert "Generative models" in told.stdout


def test_a_network_of_mixed_columns_is_given_them(tmp_path):
    rows = load_penguins().frame.dropna().iloc[::4]
    rows.to_csv(tmp_path / "birds.csv", index=False)
    run(
        *("fit", "made", str(tmp_path / "birds.csv"), "--out", str(tmp_path / "made")),
        *("--param", "inference__training__epochs=1", "--param", "hidden_layer_sizes=(8,)"),
    )
    assert "species" in ppl_gen.load(tmp_path / "made").feature_names_in_


TINY = {"n_layers": 1, "n_heads": 1, "width": 4, "context_length": 16, "inference__epochs": 1}


@pytest.mark.parametrize("chosen", [[], ["--columns", "text"]], ids=["by itself", "by its name"])
def test_the_text_of_a_data_set(chosen, tmp_path):
    result = run(
        *("fit", "causal-transformer", "ecclesiastes", "--out", tmp_path / "run", *chosen),
        *(f"--param={name}={value}" for name, value in TINY.items()),
    )
    assert result.exit_code == 0, result.output
    assert not result.stderr
    model = ppl_gen.load(tmp_path / "run")
    assert np.isfinite(model.log_prob(load_ecclesiastes().frame["text"][0])).all()


def test_the_lines_of_a_text(tmp_path):
    lines = ["abab", "naïve, bb", "1,2", "abb", "aba"]
    text = tmp_path / "lines.txt"
    text.write_bytes("\r\n\n".join(lines).encode() + b"\n")
    result = run("fit", "markov-chain", text, "--out", tmp_path / "run", "--param", "order=2")
    assert result.exit_code == 0, result.output
    model, expected = ppl_gen.load(tmp_path / "run"), ppl_gen.MarkovChain(2).fit(lines)
    np.testing.assert_allclose(model.log_prob(lines), expected.log_prob(lines))
    for args, message in (
        (["markov-chain", text, "--columns=a"], "lines.txt is a text, which has no columns"),
        (["markov-chain", tmp_path / "no.txt"], "no file "),
        (["markov-chain", empty(tmp_path)], "MarkovChain.fit: X has no sequence"),
        (["markov-chain", "ecclesiastes", "--columns=prose"], "has no column 'prose'"),
    ):
        result = run("fit", *args, "--out", tmp_path / "other")
        assert (result.exit_code, result.stderr.count("\n")) == (2, 1)
        assert message in result.stderr


def empty(folder):
    (folder / "empty.txt").write_text("\n\n")
    return folder / "empty.txt"


def test_states_in_a_table_are_one_sequence(tmp_path):
    pd.DataFrame({"state": [*"abbabaab"]}).to_csv(tmp_path / "states.csv", index=False)
    args = ("markov-chain", tmp_path / "states.csv", "--columns=state", "--out", tmp_path / "run")
    assert run("fit", *args).exit_code == 0
    assert ppl_gen.load(tmp_path / "run").states_.tolist() == ["a", "b"]


def test_a_training_that_diverges_is_told_in_one_line(tmp_path):
    training = {"epochs": 2, "learning_rate": 1e30}
    settings = [f"--param=inference__training__{name}={value}" for name, value in training.items()]
    result = run(
        *("fit", "normalizing-flow", "faithful", "--columns=eruptions", "--out", tmp_path / "flow"),
        *("--method=maximum_likelihood", *settings),
    )
    assert result.exit_code == 2
    assert "ppl-gen: NormalizingFlow.fit: the loss is nan at step 2" in result.output
    assert not (tmp_path / "flow").exists()
