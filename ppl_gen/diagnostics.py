"""The verdict: whether draws can be trusted, why not, and what to do, in one paragraph."""

import html
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ppl_gen.algorithms.convergence import bfmi, bulk_ess, rhat, tail_ess

__all__ = ["Verdict", "of_chains", "of_independent_draws", "of_point"]

Draws = Mapping[str, NDArray[Any]]

#: Vehtari et al. (2021) recommend both bounds.
RHAT_LIMIT = 1.01
ESS_PER_CHAIN = 100
#: Betancourt (2016).
BFMI_LIMIT = 0.3
#: Vehtari, Simpson, Gelman, Yao and Gabry (2024): importance weights are reliable up to here.
PARETO_K_LIMIT = 0.7


@dataclass(frozen=True)
class Verdict:
    """Whether draws can be used, said in words and numbers.

    Attributes
    ----------
    ok : bool
        No check failed.
    text : str
        One paragraph: what was found, and what to do about it.
    figures : dict of str to float
        The numbers behind it: ``max_rhat``, ``min_bulk_ess``, ``min_tail_ess``, ``divergences``,
        ``min_bfmi``, ``max_treedepth_share``; those that apply.
    """

    ok: bool
    text: str
    figures: dict[str, float] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.text

    def _repr_html_(self) -> str:
        colour, word = ("#1a7f37", "good") if self.ok else ("#b35900", "look closer")
        return (
            f'<p style="border-left: 4px solid {colour}; padding-left: 0.7em">'
            f"<b>Verdict: {word}.</b> {html.escape(self.text)}</p>"
        )


def labelled_names(name: str, shape: tuple[int, ...]) -> list[str]:
    """Names of the entries of an array: ``theta[0, 1]``, or ``theta`` for a scalar.

    Examples
    --------
    >>> labelled_names("theta", (2,))
    ['theta[0]', 'theta[1]']
    >>> labelled_names("mu", ())
    ['mu']
    """
    if not shape:
        return [name]
    return [f"{name}[{', '.join(map(str, index))}]" for index in np.ndindex(shape)]


def of_chains(draws: Draws, sample_stats: Draws, info: Mapping[str, Any]) -> Verdict:
    """Judge Markov chains.

    Parameters
    ----------
    draws : dict of ndarray, shape (chains, draws, ...)
        Entries that never change are left out.
    sample_stats : dict of ndarray, shape (chains, draws)
        ``diverging``, ``energy`` and ``reached_max_treedepth`` are used, where there.
    info : dict
        ``interrupted`` is mentioned.

    Returns
    -------
    Verdict
    """
    chains, length = next(iter(draws.values())).shape[:2]
    names: list[str] = []
    table: list[NDArray[np.float64]] = []
    constants = 0
    for name, values in draws.items():
        if values.dtype.kind not in "biuf":
            continue
        rows = np.stack([np.ravel(f(values)) for f in (rhat, bulk_ess, tail_ess)], axis=-1)
        varies = ~np.isnan(rows[:, 1])
        constants += int(np.sum(~varies))
        labels = labelled_names(name, values.shape[2:])
        names += [label for label, kept in zip(labels, varies, strict=True) if kept]
        table.append(rows[varies])
    values_table = np.concatenate(table) if table else np.empty((0, 3))

    good = [f"{chains} chain{'s' * (chains != 1)} of {length:,} draws"]
    bad: list[str] = []
    advice: list[str] = []
    figures: dict[str, float] = {}
    if info.get("interrupted"):
        bad.append("the run was interrupted, so there are fewer draws than asked for")
        advice.append("run it to its end")
    _check_nan(draws, bad, advice)
    if len(names):
        _check_mixing(names, values_table, chains, figures, good, bad, advice)
    _check_sampler(sample_stats, chains * length, figures, good, bad, advice)
    if constants:
        good.append(f"{constants} constant entr{'y' if constants == 1 else 'ies'} left out")
    return _paragraph(good, bad, advice, figures)


def _check_nan(draws: Draws, bad: list[str], advice: list[str]) -> None:
    broken = [n for n, v in draws.items() if v.dtype.kind == "f" and not np.isfinite(v).all()]
    if broken:
        bad.append(f"draws of {', '.join(broken)} are NaN or infinite")
        advice.append("look for an overflow in the program: logarithms of 0, scales near 0")


def _check_mixing(
    names: list[str],
    table: NDArray[np.float64],
    chains: int,
    figures: dict[str, float],
    good: list[str],
    bad: list[str],
    advice: list[str],
) -> None:
    ratios, bulk, tail = table.T
    needed = ESS_PER_CHAIN * chains
    figures["min_bulk_ess"], figures["min_tail_ess"] = float(bulk.min()), float(tail.min())
    if chains > 1:
        worst = int(np.nanargmax(ratios))
        figures["max_rhat"] = float(ratios[worst])
        said = f"R-hat at most {ratios[worst]:.3f} ({names[worst]})"
        if ratios[worst] > RHAT_LIMIT:
            count = int(np.sum(ratios > RHAT_LIMIT))
            bad.append(
                f"chains disagree: R-hat is {ratios[worst]:.3f} for {names[worst]}, and over "
                f"{RHAT_LIMIT} for {count} of {len(names)} entries"
            )
            advice.append(
                "run longer (warmup, draws); if it stays, several modes or a ridge are likely: "
                "reparametrise, tighten priors, or name exchangeable components by exchangeable=, "
                "and factors that rotations leave as likely by rotatable="
            )
        else:
            good.append(said)
    else:
        good.append("R-hat needs two chains or more")
    for kind, sizes in (("bulk", bulk), ("tail", tail)):
        worst = int(np.argmin(sizes))
        if sizes[worst] < needed:
            bad.append(
                f"only {sizes[worst]:,.0f} effective draws in the {kind} of {names[worst]} "
                f"({needed:,} wanted)"
            )
            longer = "draw more, or reparametrise what is strongly correlated"
            if longer not in advice:
                advice.append(longer)
        else:
            good.append(
                f"at least {sizes[worst]:,.0f} effective draws in the {kind} ({names[worst]})"
            )


def _check_sampler(
    stats: Draws,
    total: int,
    figures: dict[str, float],
    good: list[str],
    bad: list[str],
    advice: list[str],
) -> None:
    if "diverging" in stats:
        count = int(np.sum(stats["diverging"]))
        figures["divergences"] = float(count)
        if count:
            bad.append(
                f"{count:,} divergence{'s' * (count > 1)} in {total:,} draws, where the posterior "
                "may be cut off"
            )
            advice.append(
                "raise target_accept (0.95, 0.99); in a hierarchy use the non-centred form"
            )
        else:
            good.append("no divergences")
    if "energy" in stats:
        lowest = float(np.min(bfmi(stats["energy"])))
        figures["min_bfmi"] = lowest
        if lowest < BFMI_LIMIT:
            bad.append(f"BFMI is {lowest:.2f} (under {BFMI_LIMIT}): tails are explored slowly")
            advice.append("reparametrise heavy-tailed parts, and draw more")
        else:
            good.append(f"BFMI at least {lowest:.2f}")
    if "reached_max_treedepth" in stats:
        share = float(np.mean(stats["reached_max_treedepth"]))
        figures["max_treedepth_share"] = share
        if share > 0:
            bad.append(f"{share:.1%} of the trajectories ended at the greatest tree depth")
            advice.append("this is slow rather than wrong: rescale, dense_mass=True, or raise it")


def of_independent_draws(draws: Draws, info: Mapping[str, Any]) -> Verdict:
    """Judge independent draws: exact ones, or an approximation's, by Pareto k where it is known.

    Parameters
    ----------
    draws : dict of ndarray, shape (1, draws, ...)
    info : dict
        ``exact``, ``pareto_k``, ``converged`` (None: not judged) and ``interrupted`` are used,
        where there.

    Returns
    -------
    Verdict
    """
    length = next(iter(draws.values())).shape[1]
    bad: list[str] = []
    advice: list[str] = []
    figures: dict[str, float] = {}
    _check_nan(draws, bad, advice)
    if info.get("exact"):
        return _paragraph(
            [f"{length:,} independent draws from the posterior itself"], bad, advice, figures
        )
    good = [f"{length:,} independent draws from an approximation"]
    _check_converged(info, good, bad, advice)
    k = info.get("pareto_k")
    if k is not None and not np.isnan(k):
        figures["pareto_k"] = float(k)
        if k > PARETO_K_LIMIT:
            bad.append(
                f"Pareto k is {k:.2f} (over {PARETO_K_LIMIT}): the approximation is far from the "
                "posterior somewhere"
            )
            advice.append("use a richer guide, or NUTS; means may still be useful, spreads less")
        else:
            good.append(f"Pareto k {k:.2f}, so it is close to the posterior")
    else:
        good.append("how close it is to the posterior was not measured")
    return _paragraph(good, bad, advice, figures)


#: How the training of a network ended, and what to do about it.
_ENDINGS = {
    "epochs": ("training went to the end of its last epoch, {epochs}", None),
    "patience": ("training ended with epoch {epochs}, the validation loss falling no more", None),
    "max_seconds": ("training ended with its time, max_seconds", None),
    "interrupted": ("training was interrupted", "train to the end"),
    "diverged": ("training diverged", "lower learning_rate, or set clip_norm"),
}


def of_point(info: Mapping[str, Any]) -> Verdict:
    """Judge a point estimate by whether its optimisation converged, or how its training ended.

    Parameters
    ----------
    info : dict
        ``converged`` (None: not judged) and ``interrupted`` are used, where there; of a network,
        ``stopped`` and ``epochs``.

    Returns
    -------
    Verdict
    """
    good = ["One point estimate, without uncertainty"]
    bad: list[str] = []
    advice: list[str] = []
    _check_converged(info, good, bad, advice)
    if "stopped" in info:
        told, remedy = _ENDINGS[info["stopped"]]
        (bad if remedy else good).append(told.format(epochs=info["epochs"]))
        if remedy:
            advice.append(remedy)
        else:
            good.append("and whether that was enough, its history tells")
    return _paragraph(good, bad, advice, {}, them="it")


def _check_converged(
    info: Mapping[str, Any], good: list[str], bad: list[str], advice: list[str]
) -> None:
    if "converged" not in info:
        return
    if info["converged"]:
        good.append("the optimisation converged")
    elif info.get("interrupted"):
        bad.append("the optimisation was interrupted")
        advice.append("run it to its end")
    elif info["converged"] is None:
        good.append("convergence was not judged (set tol for that, or look at the history)")
    else:
        bad.append("the optimisation did not converge")
        advice.append("allow more steps, or loosen the tolerance")


def _paragraph(
    good: list[str],
    bad: list[str],
    advice: list[str],
    figures: dict[str, float],
    them: str = "them",
) -> Verdict:
    found = f"{good[0]}: {', '.join(good[1:])}." if good[1:] else f"{good[0]}."
    if not bad:
        return Verdict(True, f"{found} Nothing speaks against using {them}.", figures)
    text = f"{found} But {'; '.join(bad)}. What to do: {'; '.join(advice)}."
    return Verdict(False, text, figures)
