"""Distributions of our own, the part that both engines share.

`Mixture` and `Family` marginalise a discrete latent inside their density, so that the pointwise
log likelihood is a true one (so do `HiddenMarkov`, in ``marginal_chain``, and `BayesNet`, in
``marginal_network``); `Ordered` and `Flat` are priors that need not be proper. The classes here
hold the mathematics over arrays of whichever engine; ``_pyro_distributions`` and
``_numpyro_distributions`` make real distributions of that library out of them.

Shapes: B is the batch shape, E the event shape, K the number of components.
"""

from __future__ import annotations

from typing import Any

from ppl_gen.engines.base import RandomSource


def stacked_shape(sample_shape: Any, *shapes: Any) -> tuple[int, ...]:
    """Join shapes end to end."""
    return tuple(sample_shape) + tuple(size for shape in shapes for size in shape)


def chosen(ops: Any, each: Any, labels: Any, event_shape: Any) -> Any:
    """Pick the draw of one component a label: ``labels.shape + (K,) + event`` to without K."""
    batch, event = tuple(labels.shape), tuple(event_shape)
    index = ops.reshape(labels, (*batch, 1, *(1 for _ in event)))
    index = ops.broadcast_to(index, (*batch, 1, *event))
    picked = ops.take_along_axis(each, index, axis=len(batch))
    return ops.reshape(picked, (*batch, *event))


class MixtureRules:
    """A finite mixture with its component summed out.

    ``log p(x) = logsumexp_k [log w_k + log p_k(x)]``.

    Parameters
    ----------
    weights : array (..., K)
        Probabilities of the components.
    components : distribution
        Its rightmost batch axis, of size K, runs over the components.
    latent : str, default "z"
        The name under which the component can be asked for.
    """

    weights: Any
    components: Any
    latent: str
    event_shape: Any
    batch_shape: Any
    #: Namespace with expand_dims, log, logsumexp, softmax, take_along_axis, broadcast_to, reshape.
    ops: Any

    def latent_log_joint(self, value: Any) -> Any:
        """Return ``log w_k + log p_k(value)``, shape (..., K)."""
        axis = -(len(self.event_shape) + 1)
        each = self.components.log_prob(self.ops.expand_dims(value, axis=axis))
        return self.ops.log(self.weights) + each

    def log_prob(self, value: Any) -> Any:
        """Return the log density of `value`, the component summed out."""
        return self.ops.logsumexp(self.latent_log_joint(value), axis=-1)

    def latent_posterior(self, value: Any) -> Any:
        """Return the probability of each component given `value`, shape (..., K)."""
        return self.ops.softmax(self.latent_log_joint(value), axis=-1)

    def sample_latent(self, value: Any, random: RandomSource) -> Any:
        """Draw the component given `value`."""
        return random.categorical(self.latent_posterior(value))

    def draw(self, random: RandomSource, sample_shape: Any) -> Any:
        """Draw a component, then from it."""
        ops, count = self.ops, self.weights.shape[-1]
        batch = stacked_shape(sample_shape, self.batch_shape)
        labels = random.categorical(ops.broadcast_to(self.weights, (*batch, count)))
        if hasattr(self.components, "sample_labels"):
            return self.components.sample_labels(labels, random)
        each = self.draw_components(random, (*batch, count))
        return chosen(ops, each, labels, self.event_shape)

    def draw_components(self, random: RandomSource, batch: tuple[int, ...]) -> Any:
        """Draw from every component, shape ``batch + event``."""
        raise NotImplementedError


class FamilyRules:
    """One row of a table under each class of a family: batch (K,), event (D,).

    Parameters
    ----------
    family : object
        Has ``n_columns``, ``log_prob(parameters, x)`` from (n, D) to (n, K), and
        ``sample(parameters, labels, random)``. NaN entries of `x` are missing.
    parameters : dict
        Arrays whose leading axis is K.
    labels : integer array, optional
        The class of each row, where it is known: then the batch shape is ``labels.shape``.
    """

    family: Any
    parameters: Any
    labels: Any
    batch_shape: Any
    event_shape: Any
    ops: Any

    def log_prob(self, value: Any) -> Any:
        """Return the log density of rows.

        Parameters
        ----------
        value : array (..., 1, D), (D,) or (..., K, D)
            With labels: (..., D), to be broadcast against them.
        """
        ops, columns = self.ops, value.shape[-1]
        lead = value.shape[:-1]
        each = self.family.log_prob(self.parameters, ops.reshape(value, (-1, columns)))
        if self.labels is not None:
            return self._log_prob_labelled(ops.reshape(each, (*lead, each.shape[-1])))
        count = each.shape[-1]
        each = ops.reshape(each, (*lead, count))
        if not lead:
            return each
        if lead[-1] == 1:
            return ops.reshape(each, (*lead[:-1], count))
        if lead[-1] != count:
            raise ValueError(
                f"Family.log_prob: axis -2 of the value has size {lead[-1]}; expected 1 or the "
                f"number of classes, {count}; use expand_dims, or Mixture over this distribution"
            )
        return ops.sum(each * ops.eye(count, dtype=each.dtype), axis=-1)

    def _log_prob_labelled(self, each: Any) -> Any:
        ops = self.ops
        batch = ops.broadcast_shapes(tuple(each.shape[:-1]), tuple(self.labels.shape))
        each = ops.broadcast_to(each, (*batch, each.shape[-1]))
        index = ops.expand_dims(ops.broadcast_to(self.labels, batch), axis=-1)
        return ops.take_along_axis(each, index, axis=-1)[..., 0]

    @property
    def latent(self) -> str | None:
        """The name of the latent that the family marginalises, if it says so."""
        name: str | None = getattr(self.family, "latent", None)
        return name

    def latent_log_joint(self, value: Any) -> Any:
        """Return the log joint density of rows and each state of the family's latent, (..., K)."""
        rows = self.ops.reshape(value, (-1, value.shape[-1]))
        each = self.family.latent_log_joint(self.parameters, rows)
        return self.ops.reshape(each, (*value.shape[:-1], each.shape[-1]))

    def sample_labels(self, labels: Any, random: RandomSource) -> Any:
        """Draw one row for each label, shape ``labels.shape + (D,)``."""
        rows = self.family.sample(self.parameters, self.ops.reshape(labels, (-1,)), random)
        return self.ops.reshape(rows, (*labels.shape, self.family.n_columns))

    def draw(self, random: RandomSource, sample_shape: Any) -> Any:
        """Draw a row of each class."""
        labels = self.labels
        if labels is None:
            labels = self.ops.arange(self.batch_shape[-1])
        shape = stacked_shape(sample_shape, self.batch_shape)
        return self.sample_labels(self.ops.broadcast_to(labels, shape), random)

    def class_count(self) -> int:
        """Return K, read off the first array among the parameters."""
        leaf = self.parameters
        while isinstance(leaf, dict):
            leaf = next(iter(leaf.values()))
        return int(leaf.shape[0])


class OrderedRules:
    """An increasing vector whose density is the product of its elements' own densities.

    The density is not renormalised over the ordered vectors. Over `size` independent draws of one
    `base` the missing constant is ``log(size!)``, and sorting such draws samples the distribution
    exactly. Where elements have different bases, or must be positive without the base being so,
    no such sampler exists: the prior counts as improper and draws only serve as starting points.

    Parameters
    ----------
    base : distribution
        Of a scalar; its batch shape is () or (size,).
    size : int, optional
        Length of the vector; by default that of `base`.
    positive : bool, default False
        Whether the elements must be positive, too.
    """

    base: Any
    size: int
    positive: bool
    improper: bool
    ops: Any

    def log_prob(self, value: Any) -> Any:
        """Return the sum of the elements' log densities."""
        return self.ops.sum(self.base.log_prob(value), axis=-1)


def check_ordered(base: Any, size: int | None) -> int:
    """Return the length of an `Ordered` vector.

    Raises
    ------
    ValueError
        If `base` is not over scalars, or its shape and `size` disagree.
    """
    shape = tuple(base.batch_shape)
    if len(tuple(base.event_shape)) or len(shape) > 1 or (shape and size not in (None, shape[0])):
        raise ValueError(
            f"dist.Ordered: base has batch shape {shape} and event shape "
            f"{tuple(base.event_shape)} for size {size}; expected a distribution of a scalar; "
            "give one base and a size, or a base with one entry an element"
        )
    if not shape and size is None:
        raise ValueError("dist.Ordered: no size; expected the length of the vector; pass size=")
    return shape[0] if shape else int(size or 0)
