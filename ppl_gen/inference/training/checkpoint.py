"""Checkpoints of training: a directory of JSON and safetensors, replaced as a whole.

::

    checkpoint.json                      what was trained on what and how; where it had got to
    state-<epoch>-<batch>.safetensors    the tensors that it names, with their SHA-256

The tensors are written first, under a name of their own, and the JSON is then replaced by one
rename: whenever the process dies, the directory holds one whole checkpoint.
"""

import hashlib
import json
import os
import warnings
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

import ppl_gen
from ppl_gen import artifact_tree
from ppl_gen.inference.training.objective import Objective
from ppl_gen.inference.training.parallel import Processes
from ppl_gen.inference.training.settings import Training
from ppl_gen.inference.training.weights import tensors_of

__all__ = ["Checkpoint", "CheckpointError", "fingerprint", "identity"]

FORMAT = "ppl_gen checkpoint"
VERSION = 1
MANIFEST = "checkpoint.json"
#: What is being written.
TEMPORARY = "writing.tmp"
#: Settings with which a run may go on otherwise than it began.
_FREE = ("epochs", "patience", "max_seconds", "checkpoint", "checkpoint_minutes", "progress")
#: Bytes of an array that are all hashed; of larger ones a thousand rows are.
_SMALL = 2**26


class CheckpointError(ValueError):
    """A checkpoint of another training, or a damaged one."""


class Checkpoint:
    """Where a training keeps its state.

    Parameters
    ----------
    path : path
        A directory, which is made.
    identity : dict
        Plain data that tells this training from others.
    who : str
        How messages begin.

    Raises
    ------
    CheckpointError
        If something else is at `path`.
    """

    def __init__(self, path: str | os.PathLike[str], identity: Mapping[str, Any], who: str) -> None:
        self.directory, self.who = Path(path), who
        content, arrays = artifact_tree.encode(dict(identity) | {"version": ppl_gen.__version__})
        digests = {
            name: hashlib.sha256(array.tobytes()).hexdigest() for name, array in arrays.items()
        }
        self.identity = json.loads(json.dumps({"training": content, "arrays": digests}))
        self._file: str | None = None
        self._told = False
        if self.directory.exists():
            self._check_directory()

    def _check_directory(self) -> None:
        if not self.directory.is_dir():
            self._refuse("is no directory; expected one, or a path where nothing is")
        others = sorted(p.name for p in self.directory.iterdir() if not _is_ours(p.name))
        if others:
            self._refuse(
                f"holds other files ({', '.join(others[:3])}); expected a directory of its own"
            )

    def prepare(self) -> None:
        """Make the directory, so that one that cannot be written to is told before any work.

        Raises
        ------
        CheckpointError
            If it cannot.
        """
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            (self.directory / TEMPORARY).touch()
            (self.directory / TEMPORARY).unlink()
        except OSError as error:
            self._refuse(f"cannot be written ({error}); expected a directory that can be")

    def write(self, state: Mapping[str, Any], label: str) -> None:
        """Keep a state in place of the one before.

        Parameters
        ----------
        state : dict
            Nested dicts, lists and tuples of plain values and tensors.
        label : str
            Tells states of one training apart: the one that is there is not written again.

        Warns
        -----
        RuntimeWarning
            Once, if it cannot be written: the state before is still kept.
        """
        name = f"state-{label}.safetensors"
        if name == self._file:
            return  # nothing was done since
        try:
            self._replace(name, state)
        except OSError as error:
            if self._told:
                return
            self._told = True
            warnings.warn(
                f"{self.who}: the checkpoint {self.directory} could not be written ({error}); "
                "training goes on, what was written before stays, and the next one is tried when "
                "it is due; make room, or let the directory be written to",
                RuntimeWarning,
                stacklevel=2,
            )

    def _replace(self, name: str, state: Mapping[str, Any]) -> None:
        content, arrays = artifact_tree.encode(_to_arrays(dict(state)))
        tensors = save(arrays)
        _write(self.directory / name, tensors)
        manifest = {
            "format": FORMAT,
            "format_version": VERSION,
            "identity": self.identity,
            "tensors": {"file": name, "sha256": hashlib.sha256(tensors).hexdigest()},
            "state": content,
        }
        text = json.dumps(manifest, indent=1, allow_nan=False) + "\n"
        _write(self.directory / MANIFEST, text.encode("ascii"))
        self._file = name
        for file in self.directory.iterdir():
            # What others put here since is theirs.
            if _is_ours(file.name) and file.name not in (name, MANIFEST):
                file.unlink()

    def read(self) -> dict[str, Any] | None:
        """Return the state that is kept, with its tensors on the CPU; None where there is none.

        Raises
        ------
        CheckpointError
            If it is of another training, damaged, or of another version.
        """
        file = self.directory / MANIFEST
        if not file.is_file():
            return None
        try:
            manifest = json.loads(file.read_bytes())
        except ValueError as error:
            self._refuse(f"is damaged ({MANIFEST} is no JSON: {error}); delete it to start anew")
        if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
            self._refuse("was not written by ppl_gen; expected another path")
        if manifest.get("format_version") != VERSION:
            self._refuse(
                f"has format {manifest.get('format_version')}, and this version of ppl_gen reads "
                f"{VERSION}; delete it to start anew, or go on with the version that wrote it"
            )
        self._compare(manifest.get("identity"))
        content = self._tensors(manifest.get("tensors"))
        try:
            state = artifact_tree.decode(manifest["state"], load(content))
        except (artifact_tree.ArtifactError, SafetensorError, KeyError) as error:
            self._refuse(f"is damaged ({error}); delete it to start anew")
        self._file = manifest["tensors"]["file"]
        found: dict[str, Any] = _to_tensors(state)
        return found

    def _tensors(self, recorded: Any) -> bytes:
        try:
            name, digest = str(recorded["file"]), recorded["sha256"]
            if not _is_ours(name):
                raise ValueError(f"{name!r} is no file of a checkpoint")
            content = (self.directory / name).read_bytes()
        except (KeyError, TypeError, ValueError, OSError) as error:
            self._refuse(f"is damaged ({error}); delete it to start anew")
        if hashlib.sha256(content).hexdigest() != digest:
            self._refuse(f"is damaged ({name} has another checksum); delete it to start anew")
        return content

    def _compare(self, there: Any) -> None:
        """Refuse what was made by another training, and say what differs."""
        differing = _differences(there, self.identity)
        if not differing:
            return
        told = "; ".join(f"{field}: {old} there, {new} here" for field, old, new in differing[:3])
        more = f"; and {len(differing) - 3} more" if len(differing) > 3 else ""
        fields = [field for field, _, _ in differing]
        hints = [" (a fixed random_state gives the same seed each time)"] * ("seed" in fields)
        if any(field.startswith("data.") for field in fields):
            hints.append(
                " (in cross-validation and searches each fit is a training of its own: set "
                "checkpoint=None there)"
            )
        models = [_model_of(identity) for identity in (there, self.identity)]
        if None not in models and models[0] != models[1]:
            self._refuse(
                f"is of a training of {models[0]}, and this is one of {models[1]}; give another "
                "path, or delete it to start anew"
            )
        self._refuse(
            f"is of another training ({told}{more}); expected the same model, data and settings; "
            "give another path, or delete it to start anew" + "".join(hints)
        )

    def _refuse(self, problem: str) -> Any:
        raise CheckpointError(f"{self.who}: the checkpoint {self.directory} {problem}")


def identity(
    objective: Objective,
    arrays: Mapping[str, Any],
    training: Training,
    seed: int,
    processes: Processes,
    description: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """Return what tells a training from others."""
    settings = training.get_params(deep=False)
    return {
        "objective": type(objective).__name__,
        "model": dict(description or {}),
        "weights": {
            name: f"{str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)}"
            for name, tensor in tensors_of(objective.module).items()
        },
        "data": {name: fingerprint(array) for name, array in arrays.items()},
        "settings": {n: _described(v) for n, v in settings.items() if n not in _FREE},
        "seed": seed,
        "device": processes.device.type,
        "processes": processes.count,
    }


def fingerprint(array: NDArray[Any]) -> dict[str, Any]:
    """Tell an array from others without reading much of it: shape, dtype, hash of rows.

    Examples
    --------
    >>> fingerprint(np.arange(3)) == fingerprint(np.array([0, 1, 2]))
    True
    """
    rows = array
    if array.nbytes > _SMALL:
        rows = array[np.linspace(0, len(array) - 1, 1000).astype(np.int64)]
    digest = hashlib.sha256(np.ascontiguousarray(rows).tobytes()).hexdigest()
    return {"shape": list(array.shape), "dtype": str(array.dtype), "sha256": digest}


def _described(value: Any) -> Any:
    """Return a setting as plain data: functions by their names."""
    if callable(value):
        return artifact_tree.named(value)
    return value.item() if isinstance(value, np.generic) else value


def _differences(there: Any, here: Any, path: str = "") -> list[tuple[str, Any, Any]]:
    if isinstance(there, dict) and isinstance(here, dict):
        found = []
        for name in sorted(there.keys() | here.keys()):
            inner = f"{path}.{name}" if path else name
            found += _differences(there.get(name, "nothing"), here.get(name, "nothing"), inner)
        return found
    return [] if there == here else [(path.removeprefix("training."), there, here)]


def _model_of(identity: Any) -> str | None:
    """Name of the model that was trained, if it was said; a manifest may hold anything."""
    try:
        return str(identity["training"]["model"]["model"])
    except (KeyError, TypeError):
        return None


def _is_ours(name: str) -> bool:
    state = name.startswith("state-") and name.endswith(".safetensors")
    return name in (MANIFEST, TEMPORARY) or (state and Path(name).name == name)


def _write(target: Path, content: bytes) -> None:
    """Write a file, all of it or nothing, and have it on the disk before the next one."""
    temporary = target.parent / TEMPORARY
    try:
        with temporary.open("wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(target)
    except OSError:
        with suppress(OSError):  # where the disk is full, half a file would keep it so
            temporary.unlink(missing_ok=True)
        raise
    if os.name == "posix":
        descriptor = os.open(target.parent, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _to_arrays(value: Any) -> Any:
    """Replace tensors by NumPy arrays, and subclasses of dict by dicts."""
    if isinstance(value, torch.Tensor):
        return value.detach().cpu().numpy()
    if isinstance(value, Mapping):
        return {key: _to_arrays(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_to_arrays(item) for item in value]
    if isinstance(value, tuple):
        return tuple(_to_arrays(item) for item in value)
    return value


def _to_tensors(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return torch.from_numpy(value)
    if isinstance(value, dict):
        return {key: _to_tensors(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_to_tensors(item) for item in value]
    if isinstance(value, tuple):
        return tuple(_to_tensors(item) for item in value)
    return value
