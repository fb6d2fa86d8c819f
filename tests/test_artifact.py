"""Artefacts: whole or nothing, and anything that is not whole is refused."""

import ast
import json
import os
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest

import ppl_gen
from ppl_gen import artifact
from ppl_gen.artifact import ArtifactError, load, read, write

TREE = {"parameters": {"mean": np.arange(6.0).reshape(2, 3)}, "names": ("a", "b"), "tol": 1e-3}


class Thing:
    """A class that can be saved, as models and posteriors are."""

    def __init__(self, tree, posterior, program, modules):
        self.tree = tree
        self.posterior = posterior
        self.program = program
        self.modules = modules

    @classmethod
    def from_artifact(cls, artifact, *, program=None, modules=None):
        path = artifact.posterior_path
        return cls(artifact.tree, path and path.read_bytes(), program, modules)


@pytest.fixture(autouse=True)
def _public_thing(monkeypatch):
    monkeypatch.setattr(ppl_gen, "Thing", Thing, raising=False)
    monkeypatch.setitem(ppl_gen.PUBLIC, "Thing", __name__)


def save(path, tree=TREE, *, content=b"CDF", **options):
    def posterior(file):
        file.write_bytes(content)

    return write(path, kind="model", name="Thing", tree=tree, posterior=posterior, **options)


@pytest.fixture
def saved(tmp_path):
    return save(tmp_path / "thing")


def edit(path, change, *, seal=True):
    """Alter the manifest; with `seal`, as one who knows the format would."""
    file = path / "manifest.json"
    manifest = json.loads(file.read_bytes())
    change(manifest)
    if seal:
        manifest["sha256"] = artifact._seal(manifest)
    file.write_text(json.dumps(manifest))


def test_save_and_load(saved):
    program = object()
    thing = load(saved, program=program, modules={"net": 1})
    np.testing.assert_array_equal(thing.tree["parameters"]["mean"], TREE["parameters"]["mean"])
    assert thing.tree["names"] == ("a", "b")
    assert thing.posterior == b"CDF"
    assert thing.program is program
    assert thing.modules == {"net": 1}


def test_what_lies_on_the_disk(saved):
    assert {p.name for p in saved.iterdir()} == {
        "manifest.json",
        "params.safetensors",
        "posterior.nc",
    }
    manifest = json.loads((saved / "manifest.json").read_bytes())
    assert manifest["format"] == "ppl_gen"
    assert manifest["schema_version"] == artifact.SCHEMA_VERSION
    assert manifest["versions"]["ppl_gen"] == ppl_gen.__version__
    # As readable as what the umask of the user gives to any other file.
    beside = saved.parent / "beside"
    beside.mkdir()
    assert saved.stat().st_mode == beside.stat().st_mode


def test_without_a_posterior(tmp_path):
    write(tmp_path / "method", kind="method", name="Thing", tree={})
    found = read(tmp_path / "method")
    assert (found.kind, found.name, found.tree, found.posterior_path) == (
        "method",
        "Thing",
        {},
        None,
    )


def test_parents_are_made(tmp_path):
    assert load(save(tmp_path / "runs" / "a" / "model")).tree["tol"] == 1e-3


# --- nothing is overwritten unasked, and nothing is left half done -------------------------------


def test_no_overwrite_unasked(saved):
    with pytest.raises(FileExistsError, match="pass overwrite=True"):
        save(saved, {"new": 1})
    assert "new" not in read(saved).tree


def test_overwrite(saved):
    save(saved, {"new": 1}, overwrite=True)
    assert read(saved).tree == {"new": 1}
    assert [p.name for p in saved.parent.iterdir()] == ["thing"]


def test_overwrite_of_an_empty_directory(tmp_path):
    (tmp_path / "thing").mkdir()
    with pytest.raises(FileExistsError):
        save(tmp_path / "thing")
    assert read(save(tmp_path / "thing", overwrite=True)).name == "Thing"


def test_overwrite_spares_what_is_no_artefact(tmp_path, saved):
    (saved / "notes.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "manifest.json").write_text("{}")
    for path in (saved, tmp_path / "file", tmp_path / "folder"):
        with pytest.raises(FileExistsError, match="not replaced even with overwrite=True"):
            save(path, overwrite=True)
    assert (saved / "notes.txt").read_text() == "mine"


class Interrupted(BaseException):
    """As KeyboardInterrupt, which pytest would take for its own."""


def interrupt(_file):
    raise Interrupted


@pytest.mark.parametrize("stage", ["posterior", "safetensors", "manifest", "rename"])
def test_a_write_that_fails_leaves_the_old_one_and_no_debris(saved, stage, monkeypatch):
    options = {"posterior": None}
    if stage == "posterior":
        options["posterior"] = interrupt
    elif stage == "safetensors":
        monkeypatch.setattr("safetensors.numpy.save", interrupt)
    elif stage == "manifest":
        monkeypatch.setattr(artifact, "_seal", interrupt)
    else:
        rename = Path.rename

        def fail(self, target):
            if self.suffix == ".tmp":
                raise OSError("no space")
            return rename(self, target)

        monkeypatch.setattr(Path, "rename", fail)
    with pytest.raises((Interrupted, OSError)):
        write(saved, kind="model", name="Thing", tree={"new": 1}, overwrite=True, **options)
    monkeypatch.undo()
    assert [p.name for p in saved.parent.iterdir()] == ["thing"]
    assert read(saved).tree["tol"] == 1e-3


def test_a_tree_that_cannot_be_stored_touches_nothing(tmp_path):
    with pytest.raises(TypeError, match=r"cannot store builtins\.object at '/x'"):
        save(tmp_path / "deep" / "thing", {"x": object()})
    assert not list(tmp_path.iterdir())


def test_an_artefact_that_comes_while_another_is_written(tmp_path):
    def slow(file):
        save(tmp_path / "thing", {"first": 1})
        file.write_bytes(b"CDF")

    with pytest.raises(FileExistsError):
        write(tmp_path / "thing", kind="model", name="Thing", tree={}, posterior=slow)
    assert read(tmp_path / "thing").tree == {"first": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["thing"]


def test_readers_see_the_old_or_the_new_one(saved):
    done = threading.Event()

    def writer():
        for i in range(20):
            save(saved, {"i": i}, content=bytes([i]), overwrite=True)
        done.set()

    thread = threading.Thread(target=writer)
    thread.start()
    while not done.is_set():
        try:
            load(saved)
        except (ArtifactError, FileNotFoundError):
            continue  # between the two renames: refused, never mixed
    thread.join()
    assert load(saved).posterior == bytes([load(saved).tree["i"]])


def test_only_public_names_are_saved(tmp_path):
    with pytest.raises(ValueError, match=r"'os\.system' is not a public name"):
        write(tmp_path / "x", kind="model", name="os.system", tree={})


# --- refused -------------------------------------------------------------------------------------


def test_missing(tmp_path):
    with pytest.raises(ArtifactError, match="there is no artefact at"):
        load(tmp_path / "nowhere")


@pytest.mark.parametrize("name", ["params.safetensors", "posterior.nc"])
def test_missing_file(saved, name):
    (saved / name).unlink()
    with pytest.raises(ArtifactError, match=f"{name} is missing"):
        load(saved)


@pytest.mark.parametrize("name", ["manifest.json", "params.safetensors", "posterior.nc"])
@pytest.mark.parametrize("keep", [0.0, 0.5, 0.99])
def test_truncated(saved, name, keep):
    content = (saved / name).read_bytes()
    (saved / name).write_bytes(content[: int(keep * (len(content) - 1))])
    with pytest.raises(ArtifactError, match=f"{name} (was truncated|is damaged)"):
        load(saved)


@pytest.mark.parametrize("name", ["params.safetensors", "posterior.nc"])
def test_altered(saved, name):
    content = bytearray((saved / name).read_bytes())
    content[-1] ^= 1
    (saved / name).write_bytes(content)
    with pytest.raises(ArtifactError, match=f"{name} was truncated or altered"):
        load(saved)


def test_altered_manifest(saved):
    edit(saved, lambda m: m["tree"].update(tol=0.1), seal=False)
    with pytest.raises(ArtifactError, match=r"manifest.json was altered"):
        load(saved)


def test_white_space_in_the_manifest_does_not_matter(saved):
    edit(saved, lambda m: None, seal=False)
    assert load(saved).tree["tol"] == 1e-3


def test_newer_schema(saved):
    def newer(manifest):
        manifest["schema_version"] = artifact.SCHEMA_VERSION + 1
        manifest["versions"]["ppl_gen"] = "9.9"

    edit(saved, newer)
    with pytest.raises(ArtifactError, match=r"schema version 2, written by ppl_gen 9.9.*Upgrade"):
        load(saved)


def test_foreign_file_and_directory(tmp_path):
    (tmp_path / "model.pkl").write_bytes(b"\x80\x04")
    (tmp_path / "folder").mkdir()
    for path in (tmp_path / "model.pkl", tmp_path / "folder"):
        with pytest.raises(ArtifactError, match="it is not an artefact"):
            load(path)
    for foreign in ("{}", "[]", '{"format": "another"}'):
        (tmp_path / "folder" / "manifest.json").write_text(foreign)
        with pytest.raises(ArtifactError, match="was not written by ppl_gen"):
            load(tmp_path / "folder")


@pytest.mark.parametrize("name", ["../secret", "/etc/hostname", "notes.txt", ""])
def test_names_that_lead_out_of_the_directory(saved, name):
    edit(saved, lambda m: m["files"].update({name: {"sha256": "", "bytes": 0}}))
    with pytest.raises(ArtifactError, match="names the file"):
        load(saved)


@pytest.mark.parametrize("name", ["manifest.json", "params.safetensors", "posterior.nc"])
def test_links(saved, tmp_path, name):
    (saved / name).rename(tmp_path / name)
    os.symlink(tmp_path / name, saved / name)
    with pytest.raises(ArtifactError, match=r"is a link|it is not an artefact"):
        load(saved)


@pytest.mark.parametrize("name", ["os.system", "Nothing", "load"])
def test_names_that_are_no_class_of_ours(saved, name):
    edit(saved, lambda m: m.update(name=name))
    with pytest.raises(ArtifactError, match=f"'{name}' is not a class that this version"):
        load(saved)


@pytest.mark.parametrize(
    "change",
    [
        lambda m: m.pop("tree"),
        lambda m: m.update(files=[]),
        lambda m: m.update(name=1),
        lambda m: m.update(tree={"$tuple": []}),
        lambda m: m["files"].pop("params.safetensors"),
        lambda m: m["files"].update({"posterior.nc": None}),
        lambda m: m.pop("schema_version"),
        lambda m: m.update(versions=None, schema_version="1"),
    ],
)
def test_sealed_nonsense(saved, change):
    edit(saved, change)
    with pytest.raises(ArtifactError):
        load(saved)


def test_arrays_that_are_not_safetensors(saved):
    (saved / "params.safetensors").write_bytes(b"not a tensor in sight")
    edit(
        saved,
        lambda m: m["files"].update(
            {"params.safetensors": artifact._fingerprint(saved / "params.safetensors")}
        ),
    )
    with pytest.raises(ArtifactError, match="is damaged"):
        load(saved)


def test_nesting_without_end(saved):
    (saved / "manifest.json").write_text('{"a":' * 100_000 + "1" + "}" * 100_000)
    with pytest.raises(ArtifactError, match="is damaged"):
        load(saved)


def test_a_copy_is_as_good(saved, tmp_path):
    shutil.copytree(saved, tmp_path / "copy")
    assert load(tmp_path / "copy").tree["tol"] == 1e-3


def test_nothing_in_the_package_pickles():
    banned = {"pickle", "cloudpickle", "dill", "joblib", "shelve", "marshal"}
    for path in Path(ppl_gen.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            elif isinstance(node, ast.keyword) and node.arg == "allow_pickle":
                assert isinstance(node.value, ast.Constant), path
                assert node.value.value is False, path
            assert not banned & {name.partition(".")[0] for name in names}, path
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                assert (node.value.id, node.attr) != ("torch", "load"), path
