"""Where to run, found without loading an engine where the answer is plain."""

import shutil
from pathlib import Path


def resolve_device(device: str, engine: str = "numpyro") -> str:
    """Return the device to use: "cpu", or a CUDA device that is there.

    A machine without NVIDIA's driver is known by its files, so that a fit on a CPU loads
    neither jax nor torch.

    Parameters
    ----------
    device : {"auto", "cpu", "cuda", "cuda:1", ...}
    engine : {"numpyro", "pyro"}
        That will compute: JAX and torch need not find the same devices.

    Raises
    ------
    ValueError
        If the device is unknown or not there.

    Examples
    --------
    >>> resolve_device("cpu")
    'cpu'
    """
    driver = Path("/proc/driver/nvidia").exists() or shutil.which("nvidia-smi") is not None
    if device == "cpu" or (device == "auto" and not driver):
        return "cpu"
    from ppl_gen import engines

    resolved: str = engines.get(engine).resolve_device(device)
    return resolved
