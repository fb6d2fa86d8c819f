"""Discrete networks in the Interchange Format: what bnlearn's repository keeps them in.

The grammar is that of Cozman's proposal of 1996 as the files of the repository use it: comments,
properties, quoted names, tables, rows by the parents' states in any order, default rows. Commas and
spaces both separate names; where there are commas, an unquoted name may hold spaces.
"""

from __future__ import annotations

import gzip
import os
import re
import zlib
from collections.abc import Iterable, Iterator, Mapping
from itertools import product
from pathlib import Path
from typing import IO, Any

from ppl_gen.models.bayesian_network.bif_parser import BIFNetwork, BIFParser
from ppl_gen.models.bayesian_network.cpd import Array, ConditionalDistribution, Name
from ppl_gen.models.bayesian_network.cpds import TabularCPD

__all__ = ["BIFNetwork", "read_bif", "write_bif"]

#: A name that can be written without quotes.
_PLAIN = re.compile(r"(?:[^\s{}()\[\];,|\"/]|/(?![/*]))+")


def read_bif(
    source: str | os.PathLike[str] | IO[str] | IO[bytes], normalise: bool = False
) -> BIFNetwork:
    """Read a network in the Interchange Format.

    Parameters
    ----------
    source : path, open file or str
        A file, compressed by gzip or not; or the text itself, which a string is taken for where it
        has a brace or several lines.
    normalise : bool
        Divide each row by its sum. Otherwise numbers are kept as they are printed, and a row may
        miss one by as much as the rounding of its digits explains, 0.005 at most: three times
        0.333 is a row, and three times 0.33 is none.

    Returns
    -------
    BIFNetwork
        Node -> `TabularCPD`, in the order of the file's variables. The states, and the parents of
        each node, are in the file's order, too.

    Raises
    ------
    ValueError
        If the text is no network, or not a whole one; the message has the line.
    OSError
        If the file cannot be opened.

    References
    ----------
    Cozman (1996), The Interchange Format for Bayesian Networks; Scutari, the Bayesian Network
    Repository, https://www.bnlearn.com/bnrepository.

    Examples
    --------
    >>> network = read_bif('''
    ... network weather { }
    ... variable rain { type discrete [ 2 ] { yes, no }; }
    ... variable grass { type discrete [ 2 ] { wet, dry }; }
    ... probability ( rain ) { table 0.2, 0.8; }
    ... probability ( grass | rain ) { (yes) 0.9, 0.1; (no) 0.05, 0.95; }
    ... ''')
    >>> network["grass"].frame
    grass   wet   dry
    rain
    yes    0.90  0.10
    no     0.05  0.95
    """
    text, where = _read(source)
    return BIFParser(text, where, normalise).network()


def write_bif(
    cpds: Mapping[Any, ConditionalDistribution],
    path: str | os.PathLike[str] | IO[str],
    name: str | None = None,
) -> None:
    """Write a network in the Interchange Format, every number so that it is read back the same.

    Parameters
    ----------
    cpds : mapping of node to TabularCPD
        The tables; what `read_bif` returns keeps its name and properties.
    path : path or open text file
        Where to; compressed where the path ends in ``.gz``.
    name : str, optional
        The network's name.

    Raises
    ------
    ValueError
        If a node is not tabular, a parent has no table or other states there, two names are the
        same as text, or a name has a quotation mark or a line break, which the format cannot hold.

    Examples
    --------
    >>> import io
    >>> file = io.StringIO()
    >>> write_bif({"a": TabularCPD("a", [0.25, 0.75], states={"a": ["<1 mm", "more"]})}, file)
    >>> print(file.getvalue())
    network unknown {
    }
    variable a {
      type discrete [ 2 ] { "<1 mm", more };
    }
    probability ( a ) {
      table 0.25, 0.75;
    }
    """
    text = "".join(_written(cpds, name))
    if not isinstance(path, str | os.PathLike):
        if not hasattr(path, "write"):
            raise TypeError(
                f"write_bif: path is a {type(path).__name__}; expected a path or an open text file"
            )
        path.write(text)
        return
    content = text.encode()
    if os.fspath(path).endswith(".gz"):
        content = gzip.compress(content, mtime=0)
    Path(path).write_bytes(content)


def _read(source: str | os.PathLike[str] | IO[str] | IO[bytes]) -> tuple[str, str]:
    """The text, and what messages call it."""
    where = ""
    content: str | bytes
    if isinstance(source, str) and ("{" in source or "\n" in source):
        content = source
    elif isinstance(source, str | os.PathLike):
        where = f"{os.path.basename(source)}, "
        content = Path(source).read_bytes()
    elif hasattr(source, "read"):
        content = source.read()
    else:
        raise TypeError(
            f"read_bif: source is a {type(source).__name__}; expected a path, an open file, or text"
        )
    if isinstance(content, bytes):
        try:
            if content.startswith(b"\x1f\x8b"):
                content = gzip.decompress(content)
            content = content.decode("utf-8-sig")
        except (EOFError, OSError, zlib.error) as error:
            raise ValueError(f"read_bif: {where}line 1: damaged gzip file: {error}") from error
        except UnicodeDecodeError as error:
            line = error.object.count(b"\n", 0, error.start) + 1
            raise ValueError(
                f"read_bif: {where}line {line}: byte {error.object[error.start]:#x} is no UTF-8; "
                "convert the file, or pass it opened with its encoding"
            ) from error
    return content.replace("\r\n", "\n").replace("\r", "\n"), where


def _written(cpds: Mapping[Any, ConditionalDistribution], name: str | None) -> Iterator[str]:
    """The text of a network, block by block."""
    properties: Mapping[Any, Iterable[str]] = {}
    if isinstance(cpds, BIFNetwork):
        properties = cpds.properties
        name = cpds.name if name is None else name
    tables = {cpd.node: _checked(cpd, cpds) for cpd in cpds.values()}
    spelled: dict[str, Name] = {}
    for node in tables:
        if spelled.setdefault(str(node), node) is not node:
            raise ValueError(f"write_bif: two nodes are {str(node)!r} as text; rename one")
    yield f"network {_spelled(name or 'unknown')} {{\n{_listed(properties.get(None, ()))}}}\n"
    for node, cpd in tables.items():
        states = [_spelled(state) for state in cpd.states[node]]
        if len(set(states)) != len(states):
            raise ValueError(
                f"write_bif: two states of {node!r} are the same as text: "
                f"{list(cpd.states[node])}; rename one"
            )
        yield (
            f"variable {_spelled(node)} {{\n"
            f"  type discrete [ {len(states)} ] {{ {', '.join(states)} }};\n"
            f"{_listed(properties.get(node, ()))}}}\n"
        )
    for node, cpd in tables.items():
        given = ", ".join(map(_spelled, cpd.parents))
        yield f"probability ( {_spelled(node)}{' | ' if given else ''}{given} ) {{\n"
        if not given:
            yield f"  table {_joined(cpd.values)};\n"
        # As in the repository's files, the first parent changes fastest.
        parents = [[_spelled(state) for state in cpd.states[parent]] for parent in cpd.parents]
        axes = (*reversed(range(len(parents))), len(parents))
        rows = cpd.values.transpose(axes).reshape(-1, cpd.size)
        if given:
            for row, numbers in zip(product(*parents[::-1]), rows, strict=True):
                yield f"  ({', '.join(row[::-1])}) {_joined(numbers)};\n"
        yield "}\n"


def _joined(numbers: Array) -> str:
    return ", ".join(map(repr, numbers.tolist()))


def _listed(properties: Iterable[str]) -> str:
    return "".join(f"  property {text};\n" for text in properties)


def _checked(
    cpd: ConditionalDistribution, cpds: Mapping[Any, ConditionalDistribution]
) -> TabularCPD:
    if not isinstance(cpd, TabularCPD):
        raise ValueError(
            f"write_bif: the node {cpd.node!r} is {cpd.kind}; expected tabular nodes only, since "
            "the format has no others; use save"
        )
    for parent in cpd.parents:
        if parent not in cpds:
            raise ValueError(f"write_bif: {parent!r}, a parent of {cpd.node!r}, has no table")
        if cpds[parent].states.get(parent) != cpd.states[parent]:
            raise ValueError(
                f"write_bif: the states of {parent!r} are {list(cpds[parent].states[parent])} in "
                f"its own table, and {list(cpd.states[parent])} in that of {cpd.node!r}; expected "
                "the same"
            )
    return cpd


def _spelled(name: Name) -> str:
    """A name as the format has it, in quotes where it must be."""
    text = str(name)
    if _PLAIN.fullmatch(text):
        return text
    if re.search(r'["\n\r]', text):
        raise ValueError(
            f"write_bif: the name {text!r} has a quotation mark or a line break, which the format "
            "cannot hold; rename it"
        )
    return f'"{text}"'
