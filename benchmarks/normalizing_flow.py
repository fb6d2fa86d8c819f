"""Normalizing flows: training beside zuko's and Pyro's, and what it comes to on toys of the plane.

Both sides of a row have the same layers, widths, batches, optimiser and rate, in float32.
"""

import math
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
import zuko
from pyro.distributions import Normal, TransformedDistribution
from pyro.distributions import transforms as pyro_transforms
from torch import Tensor, nn

from benchmarks.measure import Row, in_turn
from ppl_gen.datasets import make_checkerboard, make_eight_gaussians, make_two_moons
from ppl_gen.neural.flow import Flow
from ppl_gen.neural.transforms import nsf, realnvp

BATCH, HIDDEN, STEPS = 512, (64, 64), 20
SECONDS, RATE = 20.0, 5e-3
N_TRAIN, N_TEST = 100_000, 20_000
TOYS = (
    ("eight gaussians", make_eight_gaussians, 1.76),
    ("checkerboard", make_checkerboard, 3.60),
    ("two moons", make_two_moons, 1.03),
)

LogProb = Callable[[Tensor], Tensor]


def rows() -> Iterator[Row]:
    """Measure steps of training, then the density that they lead to."""
    torch.set_num_threads(1)
    for width in (2, 8):
        yield spline_steps(width)
    yield coupling_steps(8)
    for name, make, target in TOYS:
        yield toy(name, make, target)


def spline_steps(width: int) -> Row:
    """Autoregressive splines: three transforms of eight bins, as zuko's defaults are."""
    torch.manual_seed(0)
    ours, theirs = nsf(width, n_transforms=3, hidden=HIDDEN, bins=8, bound=5.0), zuko_nsf(width)
    flow = Flow(ours, width)
    return steps(f"NSF, {width} columns", "zuko", width, flow, flow.log_prob, theirs, of(theirs))


def coupling_steps(width: int) -> Row:
    """Affine couplings with shuffles between, as zuko has none of: Pyro's."""
    torch.manual_seed(0)
    flow = Flow(realnvp(width, n_transforms=8, hidden=HIDDEN), width)
    layers: list[Any] = []
    for step in range(8):
        if step:
            layers.append(pyro_transforms.permute(width))
        layers.append(pyro_transforms.affine_coupling(width, list(HIDDEN)))
    theirs = nn.ModuleList([layer for layer in layers if isinstance(layer, nn.Module)])
    base = Normal(torch.zeros(width), torch.ones(width)).to_event(1)
    density = TransformedDistribution(base, layers)

    def log_prob(x: Tensor) -> Tensor:
        density.clear_cache()  # Pyro's would serve what the weights before gave
        found: Tensor = density.log_prob(x)
        return found

    return steps(
        f"RealNVP, {width} columns",
        "Pyro AffineCoupling",
        width,
        flow,
        flow.log_prob,
        theirs,
        log_prob,
    )


def steps(
    job: str,
    peer: str,
    width: int,
    ours: nn.Module,
    our_log_prob: LogProb,
    theirs: nn.Module,
    their_log_prob: LogProb,
) -> Row:
    """Time so many steps of each in turn, on the same rows."""
    x = torch.randn(BATCH, width) @ torch.randn(width, width)
    x = (x - x.mean(0)) / x.std(0)
    train_ours, train_theirs = stepper(ours, our_log_prob), stepper(theirs, their_log_prob)
    fast, slow, mine, other = in_turn(
        lambda: [train_ours(x) for _ in range(STEPS)][-1],
        lambda: [train_theirs(x) for _ in range(STEPS)][-1],
        repeats=15,
    )
    rates = f"{STEPS * BATCH / fast:,.0f} and {STEPS * BATCH / slow:,.0f} rows/s"
    nats = f"loss {mine:.2f} and {other:.2f} nats"
    return Row(f"{job}, {STEPS} steps of {BATCH}", peer, fast, slow, f"{rates}; {nats}", "1x")


def toy(name: str, make: Callable[..., Any], target: float) -> Row:
    """Train both for the same seconds of the processor, and score rows that neither has seen."""
    train, test = (
        torch.tensor(make(n, random_state=seed).X, dtype=torch.float32)
        for seed, n in enumerate((N_TRAIN, N_TEST))
    )
    loc, scale = train.mean(0), train.std(0)
    train, test = (train - loc) / scale, (test - loc) / scale
    torch.manual_seed(0)
    flow, theirs = Flow(nsf(2), 2), zuko_nsf(2)
    taken = [
        until(SECONDS, module, log_prob, train)
        for module, log_prob in ((flow, flow.log_prob), (theirs, of(theirs)))
    ]
    with torch.no_grad():
        ours, peer = (
            float(scale.log().sum() - log_prob(test).mean())
            for log_prob in (flow.log_prob, of(theirs))
        )
    return Row(
        f"NSF, {name}: {SECONDS:.0f} s of training",
        "zuko",
        *taken,
        f"held out: {ours:.3f} nats against {peer:.3f}",
        f"{target:.2f} nats",
    )


def zuko_nsf(width: int) -> nn.Module:
    """Return zuko's, with its defaults, which are those of Durkan et al. but for the width."""
    return zuko.flows.NSF(width, transforms=3, bins=8, hidden_features=HIDDEN)  # type: ignore


def of(flow: Any) -> LogProb:
    """Return the log density of a flow of zuko's, which it makes anew of the weights."""
    return lambda x: flow().log_prob(x)


def stepper(module: nn.Module, log_prob: LogProb, rate: float = 1e-3) -> Callable[[Tensor], float]:
    """Return one step of Adam."""
    optimizer = torch.optim.Adam(module.parameters(), lr=rate, fused=True)

    def step(x: Tensor, share: float = 1.0) -> float:
        for group in optimizer.param_groups:
            group["lr"] = rate * share
        optimizer.zero_grad()
        loss = -log_prob(x).mean()
        loss.backward()
        optimizer.step()
        return float(loss.detach())

    return step


def until(seconds: float, module: nn.Module, log_prob: LogProb, x: Tensor) -> float:
    """Train for so many seconds of the processor, half a cosine of them; return the seconds."""
    step: Any = stepper(module, log_prob, RATE)
    start = time.process_time()
    while True:
        for rows_of in torch.randperm(len(x)).split(BATCH):
            spent = (time.process_time() - start) / seconds
            if spent >= 1.0:
                return spent * seconds
            step(x[rows_of], 0.5 + 0.5 * math.cos(math.pi * spent))
