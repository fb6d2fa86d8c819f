"""Inference methods, one a file."""

# The root of the repository shows this folder through a symlink. Imported through it, every class
# would exist twice, and `isinstance` would fail between the two.
if not __name__.startswith("ppl_gen."):
    raise ImportError(
        f"{__name__}: this folder is a part of ppl_gen; import ppl_gen.inference instead"
    )
