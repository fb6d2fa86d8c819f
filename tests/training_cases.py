"""Small networks and objectives that the tests of training share, some of them in processes."""

import os
import signal

import numpy as np
import torch
from torch import nn

from ppl_gen.inference.training.objective import Objective


class Normal(nn.Module):
    """A normal density with a location and a scale for each column."""

    def __init__(self, width=2):
        super().__init__()
        self.loc = nn.Parameter(torch.zeros(width))
        self.log_scale = nn.Parameter(torch.zeros(width))

    def log_prob(self, x, context=None):
        loc = self.loc if context is None else self.loc + context
        return torch.distributions.Normal(loc, self.log_scale.exp()).log_prob(x).sum(-1)


class Denoiser(Objective):
    """Everything that a resumed run must bring back: noise, dropout, a buffer that changes.

    Parameters
    ----------
    kill_at : int, optional
        The step in which the process kills itself.
    interrupt_at : int or tuple, optional
        Steps in which Ctrl-C is pressed.
    """

    def __init__(self, seed=0, kill_at=None, interrupt_at=()):
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            layers = nn.Linear(3, 8), nn.Tanh(), nn.Dropout(0.2), nn.Linear(8, 3)
        module = nn.Sequential(*layers)
        module.register_buffer("chain", torch.zeros(4))
        super().__init__(module)
        self.kill_at, self.interrupt_at, self.calls = kill_at, interrupt_at, 0

    def losses(self, batch):
        x = batch["x"]
        noisy = x + 0.1 * torch.randn_like(x)
        error = (self.module(noisy) - x).square().sum(-1).mean()
        penalty = (self.module.chain.mean() - x.mean()).square()
        return {"loss": error + 0.0 * penalty, "penalty": penalty}

    def step(self, batch, descend):
        self.calls += 1
        if self.calls == self.kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        if self.calls in self.interrupt_at:
            signal.raise_signal(signal.SIGINT)
        parts = super().step(batch, descend)
        self.module.chain.mul_(0.9).add_(0.1 * torch.randn_like(self.module.chain))
        return parts


class Shared(Denoiser):
    """The same without the buffer, of which each process would have its own."""

    def step(self, batch, descend):
        parts = super().step(batch, descend)
        self.module.chain.zero_()
        return parts


class Game(Objective):
    """min over a, max over b of (a - 1) b + b^2 / -2: both come to rest at a = 1, b = 0."""

    def __init__(self):
        module = nn.Module()
        module.a, module.b = (nn.Parameter(torch.tensor(value)) for value in (0.0, 0.5))
        super().__init__(module)

    @property
    def players(self):
        return {"generator": [self.module.a], "critic": [self.module.b]}

    def losses(self, batch):
        a, b = self.module.a, self.module.b
        return {"loss": (a - 1) * b - b**2 / 2 + 0.0 * batch["x"].mean()}

    def step(self, batch, descend):
        critic = -self.losses(batch)["loss"]
        before = self.module.a.item()
        descend(critic, player="critic")
        assert self.module.a.item() == before
        parts = self.losses(batch)
        descend(parts["loss"], player="generator")
        return parts | {"critic": critic}


def rows(n=50, width=3):
    return {"x": np.random.default_rng(7).normal(size=(n, width)).astype(np.float32)}


def weights(module):
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def same(left, right):
    return left.keys() == right.keys() and all(torch.equal(left[n], right[n]) for n in left)
