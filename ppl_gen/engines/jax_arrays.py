"""JAX arrays in the spelling that programs use: `ops` and random numbers."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.scipy import special
from jax.scipy.linalg import solve_triangular


class JaxRandom:
    """`RandomSource` that splits a JAX key."""

    def __init__(self, key: Any) -> None:
        self._key = key

    def key(self) -> Any:
        """Return a key not used before."""
        self._key, key = jax.random.split(self._key)
        return key

    def normal(self, shape: tuple[int, ...]) -> Any:
        """Return standard normal draws of this shape."""
        return jax.random.normal(self.key(), shape)

    def uniform(self, shape: tuple[int, ...]) -> Any:
        """Return draws from [0, 1) of this shape."""
        return jax.random.uniform(self.key(), shape)

    def gamma(self, concentration: Any) -> Any:
        """Return draws of unit rate, one for each concentration."""
        return jax.random.gamma(self.key(), jnp.asarray(concentration))

    def poisson(self, rate: Any) -> Any:
        """Return counts, one for each rate."""
        return jax.random.poisson(self.key(), jnp.asarray(rate))

    def categorical(self, probs: Any) -> Any:
        """Return integers of shape ``probs.shape[:-1]``; the last axis holds probabilities."""
        return jax.random.categorical(self.key(), jnp.log(jnp.asarray(probs)), axis=-1)

    def multinomial(self, n: Any, probs: Any) -> Any:
        """Return counts of the shape of `probs` that sum to `n` over the last axis."""
        probs = jnp.asarray(probs)
        n = jnp.broadcast_to(jnp.asarray(n, dtype=probs.dtype), probs.shape[:-1])
        return jax.random.multinomial(self.key(), n, probs).astype(jnp.result_type(int))


def scan(f: Any, init: Any, xs: Any = None, length: int | None = None) -> Any:
    """Carry a state along the first axis: ``f(carry, x) -> (carry, y)``; see `jax.lax.scan`."""
    return lax.scan(f, init, xs, length=length)


class JaxOps:
    """`jax.numpy`, plus what the Array API leaves out."""

    logsumexp = staticmethod(special.logsumexp)
    softmax = staticmethod(jax.nn.softmax)
    log_softmax = staticmethod(jax.nn.log_softmax)
    sigmoid = staticmethod(jax.nn.sigmoid)
    softplus = staticmethod(jax.nn.softplus)
    solve_triangular = staticmethod(solve_triangular)
    gammaln = staticmethod(special.gammaln)
    digamma = staticmethod(special.digamma)
    i0e = staticmethod(special.i0e)
    scan = staticmethod(scan)
    stop_gradient = staticmethod(lax.stop_gradient)

    def __getattr__(self, name: str) -> Any:
        return getattr(jnp, name)


ops = JaxOps()
