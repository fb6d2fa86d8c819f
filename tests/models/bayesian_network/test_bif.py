"""Networks in the Interchange Format are read as they are, and written so that they stay."""

import gzip
import importlib.util
import io
import re
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ppl_gen import LinearGaussianCPD, TabularCPD
from ppl_gen.models.bayesian_network.bif import BIFNetwork, read_bif, write_bif

SHARED = Path(__file__).resolve().parents[4] / "shared" / "bif"
#: Name -> nodes and edges, as the repository's pages say, and free parameters of the tables.
NETWORKS = {
    "asia": (8, 8, 18),
    "cancer": (5, 4, 10),
    "earthquake": (5, 4, 10),
    "survey": (6, 6, 21),
    "sachs": (11, 17, 178),
    "alarm": (37, 46, 509),
    "child": (20, 25, 230),
    "hepar2": (70, 123, 1453),
}

WEATHER = """network weather {
}
variable rain {
  type discrete [ 3 ] { none, some, much };
}
variable grass {
  type discrete [ 2 ] { wet, dry };
}
probability ( rain ) {
  table 0.5, 0.25, 0.25;
}
probability ( grass | rain ) {
  (none) 0.125, 0.875;
  (some) 0.5, 0.5;
  (much) 0.75, 0.25;
}
"""


def shared(name):
    path = SHARED / f"{name}.bif.gz"
    if not path.exists():
        pytest.skip(f"{path.name} is not beside the project")
    return path


def written(cpds, **settings):
    file = io.StringIO()
    write_bif(cpds, file, **settings)
    return file.getvalue()


def same(a, b):
    return a == b and list(a) == list(b) and a.name == b.name and a.properties == b.properties


@pytest.mark.parametrize("name", NETWORKS)
def test_the_repository(name):
    network = read_bif(shared(name))
    nodes, edges, parameters = NETWORKS[name]
    assert len(network) == nodes
    assert sum(len(cpd.parents) for cpd in network.values()) == edges
    assert sum(cpd.values[..., 1:].size for cpd in network.values()) == parameters
    again = read_bif(written(network))
    assert same(network, again)
    for node, cpd in network.items():
        # Exactly: == of arrays, order of states and of parents.
        np.testing.assert_array_equal(cpd.values, again[node].values)
        assert (cpd.parents, dict(cpd.states)) == (again[node].parents, dict(again[node].states))


@pytest.mark.parametrize("name", NETWORKS)
def test_the_repository_with_every_number_where_a_plain_search_finds_it(name):
    text = gzip.decompress(shared(name).read_bytes()).decode()
    network = read_bif(text)
    for block in re.finditer(r"probability \( ([^)]*) \) \{([^}]*)\}", text):
        node, _, parents = block[1].partition(" | ")
        cpd = network[node]
        assert list(cpd.parents) == (parents.split(", ") if parents else [])
        rows = re.findall(r"(?:\((.*)\)|table) (.*);", block[2])
        assert len(rows) == cpd.values[..., 0].size
        for states, numbers in rows:
            row = cpd.values
            for parent, state in zip(cpd.parents, states.split(", "), strict=False):
                row = row[cpd.states[parent].index(state)]
            assert row.tolist() == [float(number) for number in numbers.split(", ")]


@pytest.mark.parametrize("name", NETWORKS)
def test_what_pgmpy_reads(name):
    pytest.importorskip("pgmpy", reason="pgmpy is in the group bench")
    text = gzip.decompress(shared(name).read_bytes()).decode()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from pgmpy.readwrite import BIFReader

        theirs = BIFReader(string=text)
    network = read_bif(text)
    assert list(network) == theirs.variable_names
    for node, cpd in network.items():
        assert list(cpd.parents) == theirs.variable_parents[node]
        assert list(cpd.states[node]) == theirs.variable_states[node]
        np.testing.assert_array_equal(
            cpd.values.reshape(-1, cpd.size).T, theirs.variable_cpds[node]
        )


def test_the_large_networks_of_the_repository():
    found = importlib.util.find_spec("pgmpy")
    if found is None or not found.submodule_search_locations:
        pytest.skip("the large networks come with pgmpy, which is in the group bench")
    folder = Path(found.submodule_search_locations[0]) / "utils" / "example_models"
    # The two largest of them, andes with 223 nodes and link with 724, and states such as "<0.5".
    for name, nodes in (("andes", 223), ("link", 724), ("insurance", 27), ("munin1", 186)):
        network = read_bif(folder / f"{name}.bif.gz")
        assert len(network) == nodes
        assert same(network, read_bif(written(network)))


def test_the_text_of_the_repository_is_written_again():
    text = gzip.decompress(shared("asia").read_bytes()).decode()
    assert written(read_bif(text)) == text


@pytest.mark.parametrize("suffix", [".bif", ".bif.gz"])
def test_sources(tmp_path, suffix):
    expected = read_bif(WEATHER)
    path = tmp_path / f"weather{suffix}"
    write_bif(expected, path)
    assert path.read_bytes().startswith(b"\x1f\x8b") == (suffix == ".bif.gz")
    assert same(read_bif(path), expected)
    assert same(read_bif(str(path)), expected)
    with open(path, "rb") as file:
        assert same(read_bif(file), expected)
    assert same(read_bif(io.StringIO(WEATHER)), expected)
    with pytest.raises(FileNotFoundError):
        read_bif(tmp_path / "none.bif")


def test_bytes_of_other_systems(tmp_path):
    path = tmp_path / "weather.bif"
    path.write_bytes(b"\xef\xbb\xbf" + WEATHER.replace("\n", "\r\n").encode())
    assert same(read_bif(path), read_bif(WEATHER))


def test_order_names_and_states():
    network = read_bif(WEATHER)
    assert network.name == "weather"
    assert network.properties == {}
    assert list(network) == ["rain", "grass"]
    assert network["rain"].states["rain"] == ("none", "some", "much")
    assert network["grass"].parents == ("rain",)
    assert network["grass"].values[2].tolist() == [0.75, 0.25]


def test_comments_properties_and_any_white_space():
    text = """// A network by "someone", with // two slashes; and {braces}
    /* variable wrong { } over
       two lines */ network "wet grass" {property author = "a; b // c";property 3;}
    variable rain{ //3 states
      type discrete[3]{none some much};property "position = (73, 165)" ;}
    variable grass /* ) */ {type discrete [ 2 ] {wet,dry} property url http://a.b/c;
    }probability(rain){table .5 .25, 25e-2;}probability
    (grass|rain){ ( none )1.25E-1 ,+0.875
    ;(some)0.5,0.5;(much)75.e-2,0.25;}"""
    network = read_bif(text)
    assert network == read_bif(WEATHER)
    assert network.name == "wet grass"
    assert network.properties == {
        None: ('author = "a; b // c"', "3"),
        "rain": ('"position = (73, 165)"',),
        "grass": ("url http://a.b/c",),
    }
    assert same(read_bif(written(network)), network)


def test_quoted_names_and_odd_characters():
    text = """network n {}
    variable "light on" { type discrete [3] { "(0, 5]" "a;b" "it's {so} // yes" }; }
    variable b-1.2 { type discrete [5] { <5, >=7.5, 12+, Asy/Patch, 0-3_days }; }
    variable größe { type discrete [2] { very small, rather big }; }
    probability ("light on") { table 0.5 0.25 0.25; }
    probability ( b-1.2 | "light on" größe ) { default 0.2 0.2 0.2 0.2 0.2;
      ("(0, 5]", "rather big") 1 0 0 0 0; ("it's {so} // yes" "very small") 0,0,0,0,1; }
    probability ( größe ) { table 0.5, 0.5; }
    """
    network = read_bif(text)
    assert list(network) == ["light on", "b-1.2", "größe"]
    assert network["light on"].states["light on"] == ("(0, 5]", "a;b", "it's {so} // yes")
    assert network["größe"].states["größe"] == ("very small", "rather big")
    b = network["b-1.2"]
    assert b.states["b-1.2"] == ("<5", ">=7.5", "12+", "Asy/Patch", "0-3_days")
    assert b.values[0, 1].tolist() == [1.0, 0.0, 0.0, 0.0, 0.0]
    assert b.values[2, 0].tolist() == [0.0, 0.0, 0.0, 0.0, 1.0]
    assert b.values[1, 1].tolist() == [0.2] * 5
    assert same(read_bif(written(network)), network)


@pytest.mark.parametrize("word", ["network", "variable", "property", "table", "default", "type"])
def test_keywords_are_names_where_names_are_expected(word):
    cpds = {
        word: TabularCPD(word, [0.25, 0.75], states={word: [word, "probability"]}),
        "probability": TabularCPD(
            "probability",
            [[0.5, 0.5], [0.125, 0.875]],
            [word],
            {word: [word, "probability"], "probability": ["discrete", word]},
        ),
    }
    for note in ("", "// noted\n"):
        text = note + written(cpds).replace("{\n", "{ " + note)
        assert read_bif(text) == cpds


def test_a_table_with_parents_counts_through_them_first():
    # Of the Interchange Format's own example: P(light on | family out) is 0.6, and else 0.05.
    network = read_bif("""network "Dog-Problem" { }
    variable "light-on" { type discrete[2] { "true" "false" }; }
    variable "family-out" { type discrete[2] { "true" "false" }; }
    probability ( "light-on" "family-out" ) { table 0.6 0.05 0.4 0.95; }
    probability ( "family-out" ) { table 0.15 0.85; }
    """)
    assert network["light-on"].parents == ("family-out",)
    assert network["light-on"].values.tolist() == [[0.6, 0.4], [0.05, 0.95]]


def test_older_files_have_spaces_between_parents():
    text = WEATHER.replace("grass | rain", "grass rain")
    assert read_bif(text) == read_bif(WEATHER)
    three = """network n {} variable a {type discrete [1] {x};} variable b {type discrete [1] {x};}
    variable c {type discrete [1] {x};} probability(a){table 1;} probability(b){table 1;}
    """
    for family in ("c | a b", "c a b", "c a, b", "c|a,b"):
        parents = read_bif(f"{three} probability({family}) {{ (x x) 1; }}")["c"].parents
        assert parents == ("a", "b")


@pytest.mark.parametrize(
    ("numbers", "kept"),
    [
        ("0.3333333, 0.3333333, 0.3333333", True),
        ("0.333, 0.333, 0.333", True),
        ("0.167, 0.166, 0.668", True),
        ("6.67e-01, 3.32e-01, 1.2e-04", True),
        ("0.33, 0.33, 0.33", False),
        ("0.5, 0.25, 0.248", False),
        ("0.8, 0.1, 0.0", False),
        ("0.3333333, 0.3333333, 0.3334333", False),
    ],
)
def test_numbers_are_kept_where_their_digits_explain_the_sum(numbers, kept):
    text = WEATHER.replace("0.5, 0.25, 0.25", numbers)
    expected = np.array([float(number) for number in numbers.split(",")])
    normalised = read_bif(text, normalise=True)["rain"].values
    np.testing.assert_array_equal(normalised, expected / expected.sum())
    if kept:
        network = read_bif(text)
        np.testing.assert_array_equal(network["rain"].values, expected)
        assert same(read_bif(written(network)), network)
    else:
        with pytest.raises(
            ValueError, match=r"line 10: the row of 'rain' is .* and sums to [01]\.[09]"
        ):
            read_bif(text)


NAMES = st.text(st.characters(exclude_characters='"\n\r', exclude_categories=["Cs"]), max_size=8)


@st.composite
def networks(draw):
    names = draw(st.lists(NAMES, min_size=1, max_size=4, unique=True))
    states = {n: draw(st.lists(NAMES, min_size=1, max_size=3, unique=True)) for n in names}
    cpds = BIFNetwork()
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    for i, node in enumerate(names):
        parents = draw(st.lists(st.sampled_from(names[:i]), unique=True)) if i else []
        shape = [len(states[name]) for name in (*parents, node)]
        table = rng.gamma(0.1, size=shape) + 1e-300
        family = {name: states[name] for name in (*parents, node)}
        cpds[node] = TabularCPD(node, table, parents, family, normalise=True)
    cpds.name = draw(NAMES) or "unknown"
    return cpds


@given(networks())
@settings(max_examples=200, deadline=None)
def test_any_names_and_numbers_are_read_as_they_were_written(network):
    assert same(read_bif(written(network)), network)


@given(st.text(alphabet='nv{}()[];,|"/*\\ \n0.5e-xétable', max_size=60))
@settings(max_examples=300, deadline=None)
def test_what_is_no_network_is_refused(text):
    for rubbish in ("network n {" + text, WEATHER + "x" + text, WEATHER[:150] + text):
        with pytest.raises(ValueError, match=r"^read_bif: line \d+: "):
            read_bif(rubbish)


def test_truncated_files():
    text = written(read_bif(WEATHER)) if not SHARED.exists() else None
    text = text or gzip.decompress(shared("asia").read_bytes()).decode()
    lines = text.count("\n")
    for end in range(len(text.rstrip())):
        with pytest.raises(ValueError, match=r"^read_bif: line \d+: ") as caught:
            read_bif(io.StringIO(text[:end]))
        line = int(re.search(r"line (\d+)", str(caught.value))[1])
        assert 1 <= line <= lines


@pytest.mark.parametrize("missing", range(len(WEATHER)))
def test_a_missing_character_is_never_more_than_a_value_error(missing):
    try:
        read_bif(WEATHER[:missing] + WEATHER[missing + 1 :])
    except ValueError as error:
        assert re.match(r"read_bif: line \d+: ", str(error))  # noqa: PT017


def test_truncated_gzip(tmp_path):
    path = tmp_path / "weather.bif.gz"
    write_bif(read_bif(WEATHER), path)
    content = path.read_bytes()
    for end in range(2, len(content) - 1):
        path.write_bytes(content[:end])
        with pytest.raises(ValueError, match=r"^read_bif: weather\.bif\.gz, line 1: damaged gzip"):
            read_bif(path)


def test_long_files_that_do_not_fit_fail_at_once():
    # In time that grows with the square of the length, this takes a minute instead of a second.
    for unit in ('"a" ', '"', "/", "a ", "(", "x,", "property "):
        for start in ("network ", "network n {", WEATHER[:-3], WEATHER[:150], WEATHER + "//"):
            with pytest.raises(ValueError, match=r"line \d+: "):
                read_bif(start + "\n" + unit * 20_000 + "\n}{")


def replaced(old, new):
    assert old in WEATHER
    return WEATHER.replace(old, new)


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("\n\n", 1, "found the end; expected 'network name {' first; is the file cut off?"),
        ("<html>\n{}", 1, "found '<html>'; expected 'network name {' first"),
        ("network a { }\n", 1, "the network has no variables"),
        ("network a { } network b { }", 1, "found 'network b { }'; expected 'variable name {'"),
        (replaced("}\nvariable grass", "\nvariable grass"), 6, "found 'variable grass {'"),
        (WEATHER + "}\n", 17, "found '}'; expected 'variable name {'"),
        (replaced("variable grass", "varible grass"), 6, "found 'varible grass {'"),
        (replaced("grass {\n", "{\n"), 6, "a variable without a name"),
        (replaced("discrete [ 2", "continuous [ 2"), 7, "found 'type continuous [ 2 ] { wet"),
        (replaced("[ 2 ]", "[ 3 ]"), 7, "is to have 3 states, but these are ['wet', 'dry']"),
        (replaced("wet, dry", "wet, wet"), 7, "the states of 'grass' are ['wet', 'wet']"),
        (replaced("variable grass", "variable rain"), 6, "second block of variable 'rain'; the fi"),
        (replaced("  type discrete [ 2 ] { wet, dry };\n", ""), 6, "'grass' has 0 types"),
        (replaced("grass | rain", "grass | snow"), 12, "'snow' is no variable of the network"),
        (replaced("( rain )", "( snow )"), 9, "'snow' is no variable of the network"),
        (replaced("( rain )", "( )"), 9, "a probability without a node"),
        (replaced("( rain )", "( grass | rain )"), 12, "second probability of 'grass'; the first"),
        (replaced("grass | rain", "grass | rain, rain"), 12, "expected each once"),
        (replaced("grass | rain", "grass | grass"), 12, "expected each once"),
        (WEATHER[: WEATHER.index("probability ( grass")], 6, "variable 'grass' has no block"),
        (replaced("0.5, 0.25, 0.25", "0.5, 0.5"), 10, "2 numbers; expected 3"),
        (replaced("0.125, 0.875", "0.125, 0.875, 0"), 13, "3 numbers; expected 2"),
        (replaced("0.125, 0.875", "0.125, 0.875x"), 13, "'0.875x' is no number"),
        (replaced("0.125, 0.875", "0.125, nan"), 13, "'nan' is no number"),
        (replaced("0.125, 0.875", "0.125, 1_0"), 13, "'1_0' is no number"),
        (replaced("0.125, 0.875", "1e999, 0.5"), 13, "1e999, 0.5 and sums to inf"),
        (replaced("0.125, 0.875", "-0.125, 1.125"), 13, "given rain='none' is -0.125, 1.125 and"),
        (replaced("0.125, 0.875", "0.125, 0.75"), 13, "is 0.125, 0.75 and sums to 0.875"),
        (replaced("(some)", "(few)"), 14, "'few' is no state of 'rain'; expected one of ['none',"),
        (replaced("(some)", "(none)"), 14, "a second row of 'grass' given rain='none'"),
        (replaced("(some)", "(some, wet)"), 14, "the states ['some', 'wet'] are to be of ['rain']"),
        (replaced("  (some) 0.5, 0.5;\n", ""), 12, "no row of 'grass' given rain='some'"),
        (replaced("0.5, 0.5;", "0.5, 0.5"), 14, "found '(some) 0.5, 0.5'; expected 'table"),
        (replaced("(some)", "table"), 12, "has other rows beside it"),
        (replaced("(some) 0.5, 0.5;", "default 1 0; default 0 1;"), 14, "a second default"),
        (replaced("(some)", "(some"), 14, "found '(some 0.5, 0.5;'"),
        (replaced("network weather {", "network weather { /* "), 1, "the comment is never closed"),
        (replaced("network weather", 'network "wea'), 1, "expected 'network name {' first"),
        (replaced("rain {", 'a "b" {'), 3, "is no name; expected one word, or all of it in quotes"),
        (
            replaced("( rain )", "( rain | grass )").replace(
                "table 0.5, 0.25, 0.25", "default 1 0 0"
            ),
            9,
            "the edges form a cycle: rain -> grass -> rain",
        ),
    ],
)
def test_bad_files(text, line, message):
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        read_bif(text)
    assert str(caught.value).startswith(f"read_bif: line {line}: ")


def test_a_message_has_the_file(tmp_path):
    path = tmp_path / "weather.bif"
    path.write_text(replaced("0.875", "0.8"))
    with pytest.raises(ValueError, match=r"^read_bif: weather\.bif, line 13: .* normalise=True"):
        read_bif(path)
    path.write_bytes(WEATHER.replace("dry", "dür").encode("latin-1"))
    with pytest.raises(ValueError, match=r"weather\.bif, line 7: byte 0xfc is no UTF-8"):
        read_bif(path)


def test_a_default_row_fills_no_enormous_table():
    names = [f"v{i}" for i in range(40)]
    text = "network n {}\n" + "".join(
        f"variable {name} {{ type discrete [2] {{ a, b }}; }}\n" for name in names
    )
    text += f"probability ( v0 | {', '.join(names[1:])} ) {{ default 0.5, 0.5; }}\n"
    text += "".join(f"probability ( {name} ) {{ table 0.5, 0.5; }}\n" for name in names[1:])
    with pytest.raises(ValueError, match=r"line 42: the table of 'v0' has 1099511627776 cells"):
        read_bif(text)
    with pytest.raises(ValueError, match=r"line 42: no row of 'v0' given v1='a', v2='a'"):
        read_bif(text.replace("default 0.5, 0.5;", ""))


def test_numbers_as_names_become_text():
    network = read_bif(written({1: TabularCPD(1, [0.5, 0.5])}, name="of numbers"))
    assert network.name == "of numbers"
    assert network["1"].states["1"] == ("0", "1")


@pytest.mark.parametrize(
    ("cpds", "message"),
    [
        ([LinearGaussianCPD("x", 0.0)], "'x' is linear_gaussian; expected tabular nodes only"),
        ([TabularCPD("x", [[1.0]], ["y"])], "'y', a parent of 'x', has no table"),
        (
            [TabularCPD("x", [[1.0]], ["y"]), TabularCPD("y", [1.0], states={"y": ["a"]})],
            r"states of 'y' are \['a'\] in its own table, and \[0\] in that of 'x'",
        ),
        ([TabularCPD('a"b', [1.0])], "has a quotation mark or a line break"),
        ([TabularCPD("a", [1.0], states={"a": ["x\ny"]})], "has a quotation mark or a line break"),
        ([TabularCPD("1", [1.0]), TabularCPD(1, [1.0])], "two nodes are '1' as text"),
        ([TabularCPD("a", [0.5, 0.5], states={"a": [1, "1"]})], "two states of 'a' are the same"),
    ],
)
def test_what_cannot_be_written(cpds, message, tmp_path):
    path = tmp_path / "n.bif"
    with pytest.raises(ValueError, match=f"write_bif: .*{message}"):
        write_bif({cpd.node: cpd for cpd in cpds}, path)
    assert not path.exists()
