"""The flows by name: stacks of couplings or autoregressive transforms."""

from collections.abc import Callable, Sequence

import torch

from ppl_gen.neural.transforms.autoregressive import Autoregressive
from ppl_gen.neural.transforms.base import FlowTransform, Inverted, Stack
from ppl_gen.neural.transforms.coupling import Coupling
from ppl_gen.neural.transforms.permutations import LULinear, Permutation
from ppl_gen.neural.transforms.splines import Affine, Monotone, RationalQuadratic

__all__ = ["TRANSFORMS", "iaf", "maf", "nsf", "nsf_coupling", "realnvp"]


def realnvp(
    width: int,
    *,
    context_width: int = 0,
    n_transforms: int = 8,
    hidden: Sequence[int] = (64, 64),
) -> Stack:
    """Real NVP: affine couplings of either half in turn, shuffled after each two.

    Parameters
    ----------
    width : int
        Variables D, at least 2.
    context_width : int
        Entries C of the context; 0 for none.
    n_transforms : int
        Couplings, at least 2, so that every variable is reached.
    hidden : sequence of int
        Widths of the hidden layers of each coupling's network.

    Returns
    -------
    Stack

    References
    ----------
    Dinh, Sohl-Dickstein and Bengio (2017). Density estimation using Real NVP. ICLR.

    Examples
    --------
    >>> import torch
    >>> from ppl_gen.neural.transforms import realnvp
    >>> realnvp(3, hidden=(8,))(torch.zeros(4, 3)).shape
    torch.Size([4, 3])
    """
    return _couplings(width, Affine(), context_width, n_transforms, hidden, linear=False)


def maf(
    width: int,
    *,
    context_width: int = 0,
    n_transforms: int = 5,
    hidden: Sequence[int] = (64, 64),
    residual: bool = False,
) -> Stack:
    """Masked autoregressive flow: one pass for densities, a pass a variable for drawing.

    Parameters
    ----------
    width : int
        Variables D.
    context_width : int
        Entries C of the context; 0 for none.
    n_transforms : int
        Autoregressive transforms; the order of the variables is turned round between them.
    hidden : sequence of int
        Widths of the hidden layers of each network.
    residual : bool
        Whether the networks have residual blocks.

    Returns
    -------
    Stack

    References
    ----------
    Papamakarios, Pavlakou and Murray (2017). Masked autoregressive flow for density
    estimation. NeurIPS.

    Examples
    --------
    >>> import torch
    >>> from ppl_gen.neural.transforms import maf
    >>> maf(3, hidden=(8,)).inverse_and_log_det(torch.zeros(4, 3))[1].shape
    torch.Size([4])
    """
    return _autoregressive(width, Affine(), context_width, n_transforms, hidden, residual)


def iaf(
    width: int,
    *,
    context_width: int = 0,
    n_transforms: int = 5,
    hidden: Sequence[int] = (64, 64),
    residual: bool = False,
) -> Stack:
    """Inverse autoregressive flow: one pass for drawing, a pass a variable for densities.

    Made for guides, whose draws are scored as they are drawn: that takes no second pass.

    Parameters
    ----------
    width : int
        Variables D.
    context_width : int
        Entries C of the context; 0 for none.
    n_transforms : int
        Autoregressive transforms; the order of the variables is turned round between them.
    hidden : sequence of int
        Widths of the hidden layers of each network.
    residual : bool
        Whether the networks have residual blocks.

    Returns
    -------
    Stack

    References
    ----------
    Kingma, Salimans, Jozefowicz, Chen, Sutskever and Welling (2016). Improved variational
    inference with inverse autoregressive flow. NeurIPS.

    Examples
    --------
    >>> import torch
    >>> from ppl_gen.neural.transforms import iaf
    >>> iaf(3, hidden=(8,))(torch.zeros(4, 3)).shape
    torch.Size([4, 3])
    """
    masked = _autoregressive(width, Affine(), context_width, n_transforms, hidden, residual)
    return Stack([Inverted(transform) for transform in masked.transforms])


def nsf(
    width: int,
    *,
    context_width: int = 0,
    n_transforms: int = 3,
    hidden: Sequence[int] = (64, 64),
    residual: bool = False,
    bins: int = 8,
    bound: float = 4.0,
) -> Stack:
    """Neural spline flow, autoregressive: the densest of these, drawing a variable a pass.

    Parameters
    ----------
    width : int
        Variables D.
    context_width : int
        Entries C of the context; 0 for none.
    n_transforms : int
        Autoregressive transforms; the order of the variables is turned round between them.
    hidden : sequence of int
        Widths of the hidden layers of each network.
    residual : bool
        Whether the networks have residual blocks.
    bins : int
        Bins of each spline.
    bound : float
        Half the side of the box that splines act in, in standard deviations of the data if these
        are standardised; outside, values stay.

    Returns
    -------
    Stack

    References
    ----------
    Durkan, Bekasov, Murray and Papamakarios (2019). Neural spline flows. NeurIPS.

    Examples
    --------
    >>> import torch
    >>> from ppl_gen.neural.transforms import nsf
    >>> nsf(3, hidden=(8,)).inverse_and_log_det(torch.zeros(4, 3))[1].shape
    torch.Size([4])
    """
    spline = RationalQuadratic(bins, bound)
    return _autoregressive(width, spline, context_width, n_transforms, hidden, residual)


def nsf_coupling(
    width: int,
    *,
    context_width: int = 0,
    n_transforms: int = 6,
    hidden: Sequence[int] = (64, 64),
    bins: int = 8,
    bound: float = 4.0,
) -> Stack:
    """Neural spline flow of couplings, mixed by L U matrices: one pass either way.

    Parameters
    ----------
    width : int
        Variables D, at least 2.
    context_width : int
        Entries C of the context; 0 for none.
    n_transforms : int
        Couplings, at least 2, so that every variable is reached.
    hidden : sequence of int
        Widths of the hidden layers of each coupling's network.
    bins : int
        Bins of each spline.
    bound : float
        Half the side of the box that splines act in.

    Returns
    -------
    Stack

    References
    ----------
    Durkan, Bekasov, Murray and Papamakarios (2019). Neural spline flows. NeurIPS.

    Examples
    --------
    >>> import torch
    >>> from ppl_gen.neural.transforms import nsf_coupling
    >>> nsf_coupling(3, hidden=(8,))(torch.zeros(4, 3)).shape
    torch.Size([4, 3])
    """
    spline = RationalQuadratic(bins, bound)
    return _couplings(width, spline, context_width, n_transforms, hidden, linear=True)


#: What makes a flow's transform, by name: ``TRANSFORMS["nsf"](width, context_width=...)``.
TRANSFORMS: dict[str, Callable[..., FlowTransform]] = {
    "nsf": nsf,
    "nsf_coupling": nsf_coupling,
    "maf": maf,
    "realnvp": realnvp,
    "iaf": iaf,
}


def _autoregressive(
    width: int,
    monotone: Monotone,
    context_width: int,
    n_transforms: int,
    hidden: Sequence[int],
    residual: bool,
) -> Stack:
    forwards = list(range(width))
    return Stack(
        [
            Autoregressive(
                width,
                monotone,
                hidden,
                context_width=context_width,
                order=forwards if step % 2 == 0 else forwards[::-1],
                residual=residual,
            )
            for step in range(n_transforms)
        ]
    )


def _couplings(
    width: int,
    monotone: Monotone,
    context_width: int,
    n_transforms: int,
    hidden: Sequence[int],
    *,
    linear: bool,
) -> Stack:
    if n_transforms < 2:
        raise ValueError(
            f"a flow of couplings: n_transforms is {n_transforms}; expected at least 2, since one "
            "leaves half of the variables as they are"
        )
    transforms: list[FlowTransform] = []
    for step in range(n_transforms):
        if linear:
            transforms.append(LULinear(width))
        if step and step % 2 == 0 and width > 2:
            # Halves that only ever swap would leave variables of one half to meet through the
            # other.
            transforms.append(Permutation(torch.randperm(width)))
        first = step % 2 == 0
        transforms.append(
            Coupling(width, monotone, hidden, context_width=context_width, first=first)
        )
    return Stack(transforms)
