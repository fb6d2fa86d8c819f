"""Masked networks: outputs of a variable that see only the variables before it."""

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["MaskedLinear", "MaskedNetwork"]


class MaskedLinear(nn.Linear):
    """A linear layer some of whose weights are held at zero.

    Parameters
    ----------
    mask : (outputs, inputs) bool tensor
        Where an output may depend on an input.
    """

    mask: Tensor | None

    def __init__(self, mask: Tensor) -> None:
        super().__init__(mask.shape[1], mask.shape[0])
        # A mask that hides nothing costs nothing.
        self.register_buffer("mask", None if mask.all() else mask.to(self.weight.dtype))

    def masked_weight(self) -> Tensor:
        """Return the weights, zero where the mask is: (outputs, inputs)."""
        return self.weight if self.mask is None else self.weight * self.mask

    def forward(self, x: Tensor) -> Tensor:
        """Map x (..., inputs) to (..., outputs)."""
        return functional.linear(x, self.masked_weight(), self.bias)


class MaskedResidual(nn.Module):
    """A residual block of two masked layers: h + B act(A act(h))."""

    def __init__(self, mask: Tensor, activation: Callable[[], nn.Module]) -> None:
        super().__init__()
        last = MaskedLinear(mask)
        # A block starts as nearly the identity, as in Durkan et al.'s networks.
        nn.init.uniform_(last.weight, -1e-3, 1e-3)
        nn.init.zeros_(last.bias)
        self.layers = nn.Sequential(activation(), MaskedLinear(mask), activation(), last)

    def forward(self, h: Tensor) -> Tensor:
        """Map h (..., hidden) to the same shape."""
        change: Tensor = self.layers(h)
        return h + change


class MaskedNetwork(nn.Module):
    """A network in which the outputs of a variable see only the variables before it: MADE's [1]_.

    Hidden unit k has a degree m(k), and sees the variables at the positions up to it; the outputs
    of the variable at position d see the hidden units of degree less than d ([1]_, equations 8
    and 9). A context is seen by all.

    Parameters
    ----------
    width : int
        Variables D.
    n_outputs : int
        Outputs of each variable: 2 for a location and a scale, K for logits of K values.
    hidden : sequence of int
        Widths of the hidden layers.
    context_width : int
        Entries C of the context; 0 for none.
    n_inputs : int
        Inputs that each variable comes as: 1 for its number, K for its one-hot code.
    order : sequence of int, or None
        The variables in the order in which they are generated; None for 0, 1, ..., D - 1.
    degrees : {"sequential", "random"}
        Whether hidden degrees go through the positions in turn, or are drawn.
    residual : bool
        Use residual blocks after the first hidden layer; all of `hidden` is then one width.
    activation : callable
        Makes the activation's module.

    Attributes
    ----------
    sequence : (D,) int tensor
        The order.

    Raises
    ------
    ValueError
        If the order is not one of D variables, or residual widths differ.

    References
    ----------
    .. [1] Germain, Gregor, Murray and Larochelle (2015). MADE: Masked autoencoder for distribution
       estimation. ICML.

    Examples
    --------
    >>> import torch
    >>> from ppl_gen.neural.masked import MaskedNetwork
    >>> network = MaskedNetwork(4, n_outputs=2, hidden=(16, 16))
    >>> network(torch.zeros(7, 4)).shape
    torch.Size([7, 4, 2])
    """

    sequence: Tensor

    def __init__(
        self,
        width: int,
        n_outputs: int,
        hidden: Sequence[int] = (64, 64),
        *,
        context_width: int = 0,
        n_inputs: int = 1,
        order: Sequence[int] | None = None,
        degrees: Literal["sequential", "random"] = "sequential",
        residual: bool = False,
        activation: Callable[[], nn.Module] = nn.ReLU,
    ) -> None:
        super().__init__()
        self.width, self.n_outputs, self.context_width = width, n_outputs, context_width
        sequence = torch.arange(width) if order is None else torch.tensor(list(order))
        if sorted(sequence.tolist()) != list(range(width)):
            raise ValueError(
                f"MaskedNetwork: order is {sequence.tolist()}; expected each of the variables 0 to "
                f"{width - 1} once"
            )
        if residual and len(set(hidden)) > 1:
            raise ValueError(
                f"MaskedNetwork: hidden is {tuple(hidden)}; expected one width throughout with "
                "residual=True"
            )
        self.register_buffer("sequence", sequence)
        position = torch.argsort(sequence) + 1  # 1..D, by variable
        # The context is an input of degree 0: all may see it.
        seen = torch.cat(
            [position.repeat_interleave(n_inputs), torch.zeros(context_width, dtype=torch.long)]
        )
        # A degree that sees nothing is of use only where there is nothing to see.
        lowest = 0 if context_width or width == 1 else 1
        layers: list[nn.Module] = []
        for layer, units in enumerate(hidden):
            if residual and layer:
                layers.append(MaskedResidual(seen[:, None] >= seen, activation))
                continue
            degree = _hidden_degrees(units, lowest, width, degrees)
            layers.append(MaskedLinear(degree[:, None] >= seen))
            if not residual:
                layers.append(activation())
            seen = degree
        if residual:
            layers.append(activation())
        self.body = nn.Sequential(*layers)
        outputs = position.repeat_interleave(n_outputs)
        self.head = MaskedLinear(outputs[:, None] > seen)
        # Straight to the outputs too: among many inputs a context of few entries is learned late.
        direct = torch.zeros(width * n_outputs, context_width)
        self.from_context = nn.Parameter(direct) if context_width else None

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Map rows (..., D * n_inputs) and contexts (..., C) to (..., D, n_outputs)."""
        outputs: Tensor = self.head(self._hidden(x, context))
        if context is not None and self.from_context is not None:
            outputs = outputs + functional.linear(context, self.from_context)
        return outputs.reshape(*x.shape[:-1], self.width, self.n_outputs)

    def of_variable(self, variable: Tensor, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Outputs (..., n_outputs) of one variable (an int tensor (1,)) alone."""
        shape = (self.width, self.n_outputs, -1)
        weight = self.head.masked_weight().reshape(shape).index_select(0, variable)[0]
        bias = self.head.bias.reshape(shape[:2]).index_select(0, variable)[0]
        outputs = functional.linear(self._hidden(x, context), weight, bias)
        if context is None or self.from_context is None:
            return outputs
        direct = self.from_context.reshape(shape).index_select(0, variable)[0]
        return outputs + functional.linear(context, direct)

    def _hidden(self, x: Tensor, context: Tensor | None) -> Tensor:
        if context is not None:
            context = context.expand(*x.shape[:-1], -1)
            x = torch.cat([x, context], dim=-1)
        hidden: Tensor = self.body(x)
        return hidden


def _hidden_degrees(units: int, lowest: int, width: int, kind: str) -> Tensor:
    """Degrees of hidden units: in turn, or drawn, from `lowest` to D - 1."""
    n_degrees = max(width - lowest, 1)
    if kind == "random":
        return lowest + torch.randint(n_degrees, (units,))
    if units >= n_degrees:
        return lowest + torch.arange(units) % n_degrees
    # Too few for all positions: spread over them, so that the last are seen as well.
    return lowest + torch.linspace(0, n_degrees - 1, units).round().long()
