"""Settings that hold for every test, made before any heavy library is imported."""

import os

from hypothesis import settings

# Two threads that share a box with other work can be far slower than one. The variable is read by
# OpenMP when torch is first imported, here and in the subprocesses that tests start.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MPLBACKEND", "Agg")

# No deadline: the first example of a test may pay for an import or a compile.
settings.register_profile("local", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("ci" if os.environ.get("CI") else "local")
