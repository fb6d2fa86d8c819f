"""The text of a network in the Interchange Format, block by block, and its tables."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from graphlib import CycleError, TopologicalSorter
from typing import NamedTuple, NoReturn

import numpy as np

from ppl_gen.models.bayesian_network.cpds import TOLERANCE, TabularCPD

#: How far from one a row may sum because of its digits: three of them, or more.
ROUNDED = 5e-3
#: The largest table that a default row may fill.
MAX_CELLS = 2**26
#: Characters of the text that a message shows.
SHOWN = 50

# Quantifiers are possessive: what does not fit fails in time linear in its length.
_QUOTED = r'"[^"\n]*"'
_LIST = rf'(?:{_QUOTED}|[^"{{}}();])*+'
_COMMENT = re.compile(
    rf"""{_QUOTED}
    | (?<![^\s{{}};])property\b(?!\s*+[{{}},|)])(?>{_QUOTED}|[^;])*+;?
    | (?P<comment>//[^\n]*+|/\*(?s:.*?\*/)?)""",
    re.VERBOSE,
)
_BLOCK = re.compile(
    rf"""\s*+(?:
      network\b(?P<network>{_LIST})\{{
    | variable\b(?P<variable>{_LIST})\{{
    | probability\s*+\((?P<probability>{_LIST})\)\s*+\{{
    | (?P<end>\Z)
    )""",
    re.VERBOSE,
)
_STATEMENT = re.compile(
    rf"""\s*+(?:
      \((?P<given>{_LIST})\)(?P<row>[^"{{}}();]*+);
    | table\b(?P<table>[^"{{}}();]*+);
    | default\b(?P<default>[^"{{}}();]*+);
    | type\s++discrete\s*+\[\s*+(?P<size>\d{{1,9}}+)\s*+\]\s*+\{{(?P<states>{_LIST})\}}\s*+;?
    | property\b(?P<property>(?>{_QUOTED}|[^;])*+);
    | (?P<close>\}})
    )""",
    re.VERBOSE,
)
#: Kind of a block -> what a message says of its statements, and which they are.
_EXPECTED = {
    "network": ("'property ...;' or '}'", {"property", "close"}),
    "variable": (
        "'type discrete [ size ] { states };', 'property ...;' or '}'",
        {"states", "property", "close"},
    ),
    "probability": (
        "'table numbers;', '(states) numbers;', 'default numbers;', 'property ...;' or '}'",
        {"row", "table", "default", "property", "close"},
    ),
}
_NAMES = re.compile(rf'{_QUOTED}|[^\s",|]+')
_NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?", re.ASCII)
_NUMBERS = re.compile(rf"[\s,]*+(?:{_NUMBER.pattern}(?:[\s,]++|\Z))*+", re.ASCII)


class BIFNetwork(dict[str, TabularCPD]):
    """The tables of a network by their nodes, in the file's order.

    Attributes
    ----------
    name : str
        The network's name.
    properties : dict of (str or None) to tuple of str
        The properties of each node that has some, and of the network under None.
    """

    name: str = "unknown"
    properties: Mapping[str | None, tuple[str, ...]] = {}


class _Row(NamedTuple):
    """The numbers of a row as they are printed, and where they begin."""

    tokens: list[str]
    at: int


class BIFParser:
    """One pass over the text, then the tables, once all variables are known."""

    def __init__(self, text: str, where: str, normalise: bool) -> None:
        self.where = where
        self.normalise = normalise
        self.text = text
        if "//" in text or "/*" in text:
            self.text = _COMMENT.sub(self._blank, text)
        #: Node -> its states, and where it is declared.
        self.states: dict[str, list[str]] = {}
        self.declared: dict[str, int] = {}
        self.blocks: list[tuple[re.Match[str], list[re.Match[str]]]] = []
        self.properties: dict[str | None, tuple[str, ...]] = {}

    def network(self) -> BIFNetwork:
        """The network, with all its tables."""
        name = self._read_blocks()
        families = self._families()
        tables = {
            node: self._table(node, parents, statements, at)
            for node, (parents, statements, at) in families.items()
        }
        network = BIFNetwork({node: tables[node] for node in self.states})
        network.name = name
        network.properties = self.properties
        return network

    def _fail(self, at: int, message: str) -> NoReturn:
        """Raise an error with the line of a position in the text."""
        line = self.text.count("\n", 0, at) + 1
        raise ValueError(f"read_bif: {self.where}line {line}: {message}")

    def _unexpected(self, at: int, expected: str) -> NoReturn:
        at += len(self.text[at:]) - len(self.text[at:].lstrip())
        found = repr(self.text[at:].partition("\n")[0][:SHOWN])
        if at == len(self.text):
            found = "the end"
        cut = "" if "}" in self.text[at:] else "; is the file cut off?"
        self._fail(min(at, len(self.text.rstrip())), f"found {found}; expected {expected}{cut}")

    def _blank(self, match: re.Match[str]) -> str:
        """Replace a comment by its line breaks, so that lines keep their numbers."""
        comment = match["comment"]
        if comment is None:
            return match[0]
        if comment == "/*":
            self._fail(match.start(), "the comment is never closed; expected '*/'")
        return " " + "\n" * comment.count("\n")

    def _read_blocks(self) -> str:
        """Collect the blocks; return the network's name."""
        match = _BLOCK.match(self.text)
        if match is None or match.lastgroup != "network":
            self._unexpected(0, "'network name {' first")
        name = self._name(match["network"], match.start("network")) or "unknown"
        while match.lastgroup != "end":
            kind = str(match.lastgroup)
            position = match.end()
            statements = []
            while (statement := self._statement(kind, position, match)).lastgroup != "close":
                statements.append(statement)
                position = statement.end()
            self._keep(kind, match, statements)
            position = statement.end()
            following = _BLOCK.match(self.text, position)
            if following is None or following.lastgroup == "network":
                self._unexpected(position, "'variable name {' or 'probability ( names ) {'")
            match = following
        return name

    def _statement(self, kind: str, position: int, block: re.Match[str]) -> re.Match[str]:
        match = _STATEMENT.match(self.text, position)
        expected, kinds = _EXPECTED[kind]
        if match is None or match.lastgroup not in kinds:
            what = " ".join(block[0].split())[:SHOWN]
            self._unexpected(position, f"{expected} in the block {what!r}")
        return match

    def _keep(self, kind: str, block: re.Match[str], statements: list[re.Match[str]]) -> None:
        properties = tuple(m["property"].strip() for m in statements if m.lastgroup == "property")
        rest = [m for m in statements if m.lastgroup != "property"]
        at = block.start(kind)
        if kind == "probability":
            self.blocks.append((block, rest))
            return
        name = None
        if kind == "variable":
            name = self._name(block[kind], at)
            if name is None:
                self._fail(at, "a variable without a name")
            if name in self.states:
                first = self.text.count("\n", 0, self.declared[name]) + 1
                self._fail(at, f"a second block of variable {name!r}; the first is on line {first}")
            if len(rest) != 1:
                self._fail(at, f"variable {name!r} has {len(rest)} types; expected one")
            self.states[name] = self._read_states(name, rest[0])
            self.declared[name] = at
        if properties:
            self.properties[name] = properties

    def _read_states(self, name: str, match: re.Match[str]) -> list[str]:
        size, at = int(match["size"]), match.start("states")
        states = _names(match["states"], size)
        if len(states) != size or not size:
            self._fail(at, f"variable {name!r} is to have {size} states, but these are {states}")
        if len(set(states)) != size:
            self._fail(at, f"the states of {name!r} are {states}; expected each once")
        return states

    def _name(self, text: str, at: int) -> str | None:
        text = text.strip()
        if text.startswith('"') and text.count('"') == 2 and text.endswith('"'):
            return text[1:-1]
        if '"' in text or "," in text:
            self._fail(at, f"{text!r} is no name; expected one word, or all of it in quotes")
        return " ".join(text.split()) or None

    def _families(self) -> dict[str, tuple[list[str], list[re.Match[str]], int]]:
        """Node -> its parents, its rows, and where its block is."""
        if not self.states:
            self._fail(len(self.text.rstrip()), "the network has no variables; is it cut off?")
        families: dict[str, tuple[list[str], list[re.Match[str]], int]] = {}
        for block, statements in self.blocks:
            at = block.start("probability")
            names = self._family(block["probability"], at)
            node, *parents = names
            if len(set(names)) != len(names):
                self._fail(at, f"{names} are the node and its parents; expected each once")
            if node in families:
                first = self.text.count("\n", 0, families[node][2]) + 1
                self._fail(at, f"a second probability of {node!r}; the first is on line {first}")
            families[node] = (parents, statements, at)
        for node, at in self.declared.items():
            if node not in families:
                self._fail(at, f"variable {node!r} has no block 'probability ( {node} ...'")
        try:
            TopologicalSorter({node: family[0] for node, family in families.items()}).prepare()
        except CycleError as error:
            circle = error.args[1]
            self._fail(families[circle[0]][2], f"the edges form a cycle: {' -> '.join(circle)}")
        return families

    def _family(self, text: str, at: int) -> list[str]:
        names = _names(text.replace("|", ",") if '"' not in text else text, None)
        if any(name not in self.states for name in names) and '"' not in text:
            # Older files have spaces, and nothing else, between the node and its parents.
            words = re.split(r"[\s|,]+", text.strip())
            names = words if "|" not in text or set(words) <= set(self.states) else names
        if not names:
            self._fail(at, "a probability without a node")
        for name in names:
            if name not in self.states:
                self._fail(at, f"{name!r} is no variable of the network; expected a block of it")
        return names

    def _table(
        self, node: str, parents: list[str], statements: list[re.Match[str]], at: int
    ) -> TabularCPD:
        family = [self.states[name] for name in (*parents, node)]
        n_rows = math.prod(map(len, family[:-1]))
        rows = self._rows(node, parents, statements, at)
        if len(rows) < n_rows:
            missing = next(i for i in range(n_rows) if i not in rows)
            self._fail(at, f"no row of {node!r}{self._given(parents, missing)}")
        ordered = [rows[i] for i in range(n_rows)]
        table = np.array([[float(token) for token in row.tokens] for row in ordered])
        sums = table.sum(axis=-1)
        wrong = ~(np.isfinite(table) & (table >= 0.0)).all(axis=-1) | (sums == 0.0)
        loose = TOLERANCE
        if not self.normalise:
            for i in np.flatnonzero(~wrong & (abs(sums - 1.0) > TOLERANCE)).tolist():
                wrong[i] = abs(sums[i] - 1.0) > _rounding(ordered[i].tokens)
                loose = ROUNDED
        if wrong.any():
            i = int(np.argmax(wrong))
            self._fail(
                ordered[i].at,
                f"the row of {node!r}{self._given(parents, i)} is {', '.join(ordered[i].tokens)} "
                f"and sums to {sums[i]:.10g}; expected numbers from 0 that sum to 1; correct it, "
                "or pass normalise=True to divide each row by its sum",
            )
        states = dict(zip((*parents, node), family, strict=True))
        return TabularCPD(node, table, parents, states, self.normalise, loose)

    def _rows(
        self, node: str, parents: list[str], statements: list[re.Match[str]], at: int
    ) -> dict[int, _Row]:
        """Number of a combination of the parents' states, in C order -> its row."""
        sizes = [len(self.states[parent]) for parent in parents]
        size, n_rows = len(self.states[node]), math.prod(sizes)
        if any(m.lastgroup == "table" for m in statements):
            if len(statements) > 1:
                self._fail(at, f"the table of {node!r} has other rows beside it; expected it alone")
            # The format counts through the node's states last: they are the slowest axis.
            numbers = self._tokens(statements[0], "table", size * n_rows)
            start = statements[0].start("table")
            return {i: _Row(numbers[i::n_rows], start) for i in range(n_rows)}
        codes = [{state: i for i, state in enumerate(self.states[parent])} for parent in parents]
        rows: dict[int, _Row] = {}
        default = None
        for match in statements:
            kind = str(match.lastgroup)
            row = _Row(self._tokens(match, kind, size), match.start(kind))
            if kind == "default":
                if default is not None:
                    self._fail(row.at, f"a second default of {node!r}")
                default = row
                continue
            number = self._number(parents, codes, sizes, match)
            if number in rows:
                self._fail(row.at, f"a second row of {node!r}{self._given(parents, number)}")
            rows[number] = row
        if default is not None:
            if n_rows * size > MAX_CELLS:
                self._fail(at, f"the table of {node!r} has {n_rows * size} cells")
            rows = {i: rows.get(i, default) for i in range(n_rows)}
        return rows

    def _number(
        self,
        parents: list[str],
        codes: list[dict[str, int]],
        sizes: list[int],
        match: re.Match[str],
    ) -> int:
        given = _names(match["given"], len(parents))
        if len(given) != len(parents):
            self._fail(match.start("given"), f"the states {given} are to be of {parents}")
        number = 0
        for parent, state, code, size in zip(parents, given, codes, sizes, strict=True):
            if state not in code:
                self._fail(
                    match.start("given"),
                    f"{state!r} is no state of {parent!r}; expected one of {list(code)}",
                )
            number = number * size + code[state]
        return number

    def _tokens(self, match: re.Match[str], group: str, count: int) -> list[str]:
        """The numbers of a row as they are printed."""
        tokens = match[group].replace(",", " ").split()
        for token in () if _NUMBERS.fullmatch(match[group]) else tokens:
            if not _NUMBER.fullmatch(token):
                self._fail(match.start(group), f"{token!r} is no number")
        if len(tokens) != count:
            self._fail(match.start(group), f"{len(tokens)} numbers; expected {count}")
        return tokens

    def _given(self, parents: list[str], number: int) -> str:
        codes = np.unravel_index(number, [len(self.states[parent]) for parent in parents])
        given = [f"{p}={self.states[p][int(i)]!r}" for p, i in zip(parents, codes, strict=True)]
        return f" given {', '.join(given)}" if given else ""


def _names(text: str, count: int | None) -> list[str]:
    """Names that commas separate, or spaces where that gives the right count."""
    if '"' in text:
        return [name.strip('"') for name in _NAMES.findall(text)]
    names = [" ".join(part.split()) for part in text.split(",")]
    names = [name for name in names if name]
    if count is not None and len(names) != count:
        words = text.replace(",", " ").split()
        return words if len(words) == count else names
    return names


def _rounding(tokens: Sequence[str]) -> float:
    """How far from one the sum of numbers may be because each was rounded as it was printed.

    Trailing zeros are often left out, so the number with the most digits tells those of them all.
    """
    digits = [re.split("[eE]", token)[0].replace(".", "").lstrip("+-0") for token in tokens]
    largest = math.floor(math.log10(max(map(float, tokens))))
    unit = 10.0 ** (largest - max(map(len, digits)) + 1)
    return min(0.5 * unit * len(tokens) * (1.0 + 1e-6), ROUNDED)
