"""Save and load without pickle: a directory of JSON, safetensors and netCDF.

An artefact is a directory::

    manifest.json        schema version, public name, versions, SHA-256 of every file, the tree
    params.safetensors   the arrays of the tree
    posterior.nc         the posterior as ArviZ reads it, where there is one

Reading runs no code from the file: classes are looked up by name in ``ppl_gen.PUBLIC``. The
checksums find damage; they prove nothing about who wrote it.
"""

import hashlib
import importlib.metadata
import json
import os
import platform
import shutil
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import ppl_gen
from ppl_gen import artifact_tree
from ppl_gen.artifact_tree import ArtifactError

__all__ = ["SCHEMA_VERSION", "Artifact", "ArtifactError", "load", "read", "write"]

FORMAT = "ppl_gen"
SCHEMA_VERSION = 1
MANIFEST = "manifest.json"
PARAMS = "params.safetensors"
POSTERIOR = "posterior.nc"
#: The distributions whose versions the manifest records.
RECORDED = ("ppl_gen", "numpy", "scipy", "scikit-learn", "pandas", "jax", "numpyro", "torch")


@dataclass(frozen=True)
class Artifact:
    """An artefact that was read and found whole.

    Attributes
    ----------
    kind : str
        What was saved, such as ``"model"`` or ``"posterior"``.
    name : str
        The public name of the class that reads it.
    tree : dict
        Its content, as it was given to `write`.
    directory : Path
        Where it lies.
    manifest : dict
        The manifest as parsed: versions, files and their checksums.
    """

    kind: str
    name: str
    tree: dict[str, Any]
    directory: Path
    manifest: dict[str, Any]

    @property
    def posterior_path(self) -> Path | None:
        """The netCDF file of the posterior, or None where none was saved."""
        return self.directory / POSTERIOR if POSTERIOR in self.manifest["files"] else None


def write(
    path: str | os.PathLike[str],
    *,
    kind: str,
    name: str,
    tree: dict[str, Any],
    posterior: Callable[[Path], object] | None = None,
    overwrite: bool = False,
) -> Path:
    """Write an artefact, all of it or nothing.

    The files are written to a directory beside `path`, flushed to the disk, and moved into place by
    one rename. An interrupted write leaves neither a half artefact nor a temporary file, and an
    older artefact as it was.

    Parameters
    ----------
    path : str or path-like
        The directory to make. Missing parents are made, too.
    kind : str
        What is saved, such as ``"model"``.
    name : str
        The public name of the class that will read it: a key of ``ppl_gen.PUBLIC``.
    tree : dict
        The content: see `ppl_gen.artifact_tree.encode` for what it may hold.
    posterior : callable, optional
        Called with the path at which it is to write the posterior as netCDF.
    overwrite : bool
        Replace an older artefact at `path`.

    Returns
    -------
    Path
        The directory written.

    Raises
    ------
    FileExistsError
        If there is something at `path` and `overwrite` is false, or what is there is not an
        artefact, or holds files of others.
    ValueError
        If `name` is not public.
    TypeError
        If the tree holds something that cannot be stored.

    Examples
    --------
    >>> import tempfile
    >>> folder = tempfile.TemporaryDirectory()
    >>> path = write(f"{folder.name}/em", kind="method", name="EM", tree={"max_iter": 100})
    >>> read(path).tree
    {'max_iter': 100}
    >>> folder.cleanup()
    """
    if name not in ppl_gen.PUBLIC:
        raise ValueError(
            f"artifact.write: {name!r} is not a public name of ppl_gen, so it could not be loaded "
            "again; save an object of a class of ppl_gen itself"
        )
    target = Path(path).resolve()
    _check_target(target, overwrite)
    content, arrays = artifact_tree.encode(tree)
    target.parent.mkdir(parents=True, exist_ok=True)
    # A directory made by tempfile could be read by its owner only, and would stay so.
    scratch = target.parent / f".{target.name}.{uuid.uuid4().hex}.tmp"
    scratch.mkdir()
    try:
        _write_files(scratch, kind, name, content, arrays, posterior)
        _move(scratch, target, overwrite)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return target


def read(path: str | os.PathLike[str]) -> Artifact:
    """Read an artefact and check that it is whole.

    Parameters
    ----------
    path : str or path-like
        The directory that `write` made.

    Returns
    -------
    Artifact
        Its content.

    Raises
    ------
    ArtifactError
        If it is missing, damaged, not an artefact, or written by a newer version.
    """
    directory = Path(path)
    manifest = _read_manifest(directory)
    arrays: Mapping[str, artifact_tree.Array] = {}
    for name, recorded in manifest["files"].items():
        content = _check_file(directory, name, recorded, keep=name == PARAMS)
        if name == PARAMS:
            arrays = _parse_arrays(directory, content)
    try:
        tree = artifact_tree.decode(manifest["tree"], arrays)
    except RecursionError as error:
        raise ArtifactError(f"ppl_gen.load: the tree of {directory} is nested too deep") from error
    if not isinstance(tree, dict):
        _refuse(directory, f"its tree is a {type(tree).__name__}, not a dict")
    return Artifact(manifest["kind"], manifest["name"], tree, directory, manifest)


def load(
    path: str | os.PathLike[str],
    *,
    program: object = None,
    modules: Mapping[str, object] | None = None,
) -> Any:
    """Load what was saved: a fitted model, a posterior, a method.

    Parameters
    ----------
    path : str or path-like
        The directory that ``save`` made.
    program : Program or callable, optional
        Your own program, for what was fitted with one: code is not saved. It is checked against the
        sites and shapes that were recorded; without it a posterior comes back that can be
        summarised but not extended.
    modules : mapping of str to module, optional
        Your own networks by name, likewise.

    Returns
    -------
    object
        An object of the class that was saved.

    Raises
    ------
    ArtifactError
        If the artefact is missing, damaged, not an artefact, written by a newer version, or of a
        class that this version does not have.

    Examples
    --------
    >>> load("no/such/model")
    Traceback (most recent call last):
        ...
    ppl_gen.artifact_tree.ArtifactError: ppl_gen.load: there is no artefact at no/such/model; ...
    """
    artifact = read(path)
    kind = getattr(ppl_gen, artifact.name) if artifact.name in ppl_gen.PUBLIC else None
    from_artifact = getattr(kind, "from_artifact", None)
    if from_artifact is None:
        _refuse(
            artifact.directory,
            f"{artifact.name!r} is not a class that this version ({ppl_gen.__version__}) can load",
        )
    return from_artifact(artifact, program=program, modules=modules)


def _refuse(path: Path, reason: str, cause: BaseException | None = None) -> NoReturn:
    raise ArtifactError(f"ppl_gen.load: {path} cannot be read: {reason}") from cause


# --- writing -------------------------------------------------------------------------------------


def _check_target(target: Path, overwrite: bool) -> None:
    """Refuse to write over what is there, save over an artefact, and that only when asked."""
    if not target.exists():
        return
    if not overwrite:
        raise FileExistsError(
            f"artifact.write: {target} exists; pass overwrite=True to replace it, or another path"
        )
    strange = [] if target.is_dir() else [target.name]
    if not strange:
        strange = sorted({p.name for p in target.iterdir()} - {MANIFEST, PARAMS, POSTERIOR})
    if not strange and any(target.iterdir()):
        strange = [] if _is_ours(target) else [MANIFEST]
    if strange:
        raise FileExistsError(
            f"artifact.write: {target} is not only an artefact ({', '.join(strange[:3])}), so it "
            "is not replaced even with overwrite=True; move it away, or choose another path"
        )


def _is_ours(directory: Path) -> bool:
    """Whether the manifest is one of ours, in whatever state the other files are."""
    try:
        return bool(json.loads((directory / MANIFEST).read_bytes())["format"] == FORMAT)
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _write_files(
    scratch: Path,
    kind: str,
    name: str,
    content: Any,
    arrays: dict[str, artifact_tree.Array],
    posterior: Callable[[Path], object] | None,
) -> None:
    from safetensors.numpy import save

    (scratch / PARAMS).write_bytes(save(arrays))
    if posterior is not None:
        posterior(scratch / POSTERIOR)
    names = [PARAMS] if posterior is None else [PARAMS, POSTERIOR]
    manifest = {
        "format": FORMAT,
        "schema_version": SCHEMA_VERSION,
        "kind": kind,
        "name": name,
        "versions": _versions(),
        "files": {n: _fingerprint(scratch / n) for n in names},
        "tree": content,
    }
    manifest["sha256"] = _seal(manifest)
    text = json.dumps(manifest, indent=1, allow_nan=False)
    (scratch / MANIFEST).write_text(text + "\n", encoding="ascii")
    for file in [*scratch.iterdir(), scratch]:
        _flush(file)


def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for name in RECORDED:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def _fingerprint(file: Path) -> dict[str, Any]:
    with file.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    return {"sha256": digest, "bytes": file.stat().st_size}


def _seal(manifest: dict[str, Any]) -> str:
    """SHA-256 of the manifest less its own seal, whatever the white space."""
    rest = {key: value for key, value in manifest.items() if key != "sha256"}
    text = json.dumps(rest, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode("ascii")).hexdigest()


def _flush(path: Path) -> None:
    """Have the system write a file or directory to the disk, so that a rename can't overtake it."""
    if os.name != "posix" and path.is_dir():
        return  # only POSIX opens directories
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _move(scratch: Path, target: Path, overwrite: bool) -> None:
    """Move the finished directory into place; the older one stays until the new one is there."""
    if not target.exists():
        scratch.rename(target)
        _flush(target.parent)
        return
    _check_target(target, overwrite)  # it may have come while the files were written
    aside = scratch.with_suffix(".old")
    target.rename(aside)
    try:
        scratch.rename(target)
    except OSError:
        aside.rename(target)
        raise
    _flush(target.parent)
    shutil.rmtree(aside)


# --- reading -------------------------------------------------------------------------------------


def _read_manifest(directory: Path) -> dict[str, Any]:
    if not directory.exists():
        raise ArtifactError(
            f"ppl_gen.load: there is no artefact at {directory}; "
            "expected a directory that .save(path) made"
        )
    file = directory / MANIFEST
    if not directory.is_dir() or not file.is_file() or file.is_symlink():
        _refuse(directory, f"it is not an artefact: expected a directory with a {MANIFEST}")
    try:
        manifest = json.loads(file.read_bytes())
    except (ValueError, RecursionError) as error:
        _refuse(directory, f"{MANIFEST} is damaged or no JSON: {error}", error)
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        _refuse(directory, f"{MANIFEST} was not written by ppl_gen")
    version = manifest.get("schema_version")
    if not isinstance(version, int) or version > SCHEMA_VERSION:
        wrote = manifest.get("versions")
        wrote = wrote.get("ppl_gen") if isinstance(wrote, dict) else None
        _refuse(
            directory,
            f"it has schema version {version!r}, written by ppl_gen {wrote}; this version "
            f"({ppl_gen.__version__}) reads up to {SCHEMA_VERSION}. Upgrade ppl_gen",
        )
    if manifest.get("sha256") != _seal(manifest):
        _refuse(directory, f"{MANIFEST} was altered after it was written (its checksum differs)")
    shape = {"kind": str, "name": str, "files": dict, "tree": dict}
    wrong = [key for key, kind in shape.items() if not isinstance(manifest.get(key), kind)]
    if wrong:
        _refuse(directory, f"{MANIFEST} lacks {', '.join(wrong)}")
    return manifest


def _check_file(directory: Path, name: str, recorded: Any, *, keep: bool) -> bytes:
    """Compare a file with its checksum; return the very bytes that were checked, if to be kept."""
    if name not in (PARAMS, POSTERIOR):
        _refuse(directory, f"{MANIFEST} names the file {name!r}, which no artefact has")
    file = directory / name
    if file.is_symlink():
        _refuse(directory, f"{name} is a link; an artefact holds plain files only")
    if not file.is_file():
        _refuse(directory, f"{name} is missing")
    content = file.read_bytes() if keep else b""
    if keep:
        found = {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
    else:
        found = _fingerprint(file)
    if found != recorded:
        _refuse(
            directory,
            f"{name} was truncated or altered after it was written (its checksum differs)",
        )
    return content


def _parse_arrays(directory: Path, content: bytes) -> dict[str, artifact_tree.Array]:
    from safetensors import SafetensorError
    from safetensors.numpy import load as parse

    try:
        return dict(parse(content))
    except (SafetensorError, KeyError, ValueError) as error:
        _refuse(directory, f"{PARAMS} is damaged: {error}", error)
