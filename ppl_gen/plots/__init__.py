"""Pictures of fitted models; ArviZ draws posteriors, from ``posterior_.idata``.

Every function draws on the axes given, or on new ones, and returns them.
"""

from ppl_gen.plots.densities import plot_density
from ppl_gen.plots.forecasts import plot_forecast
from ppl_gen.plots.images import plot_images, plot_reconstructions, plot_traversals
from ppl_gen.plots.networks import plot_network
from ppl_gen.plots.rows import plot_calibration, plot_explanation, plot_mixture
from ppl_gen.plots.states import plot_run_lengths, plot_states
from ppl_gen.plots.training import plot_active_units, plot_history
from ppl_gen.plots.transitions import plot_transitions

__all__ = [
    "plot_active_units",
    "plot_calibration",
    "plot_density",
    "plot_explanation",
    "plot_forecast",
    "plot_history",
    "plot_images",
    "plot_mixture",
    "plot_network",
    "plot_reconstructions",
    "plot_run_lengths",
    "plot_states",
    "plot_transitions",
    "plot_traversals",
]
