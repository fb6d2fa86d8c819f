"""Choosing among models: information criteria, held-out density, and leave-future-out."""

from ppl_gen.evaluate.model_choice.components import compare_components
from ppl_gen.evaluate.model_choice.future import LeaveFutureOut, leave_future_out

__all__ = ["LeaveFutureOut", "compare_components", "leave_future_out"]
