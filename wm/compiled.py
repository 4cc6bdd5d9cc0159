"""A compact predictor's rollouts compiled by torch (`torch.compile`)."""

from __future__ import annotations

from wm.errors import BadInputError
from wm.model import WorldModel
from wm.typical_inputs import typical_inputs

COUNTS = (256, 128, 1)
"""Candidates that are rolled out while compiling: two counts make torch compile for any, one is a case of its own."""


def use_compiled(model: WorldModel) -> None:
    """Roll a model out with compiled residual blocks from now on; it is changed in place, its weights are not.

    They are compiled here, which takes half a minute and a C++ compiler, so that no search of one problem has to wait
    for it; what gradients, or several problems at once, need is compiled by the first search that needs it.

    Raises:
        BadInputError: another form than the compact one, or nothing can be compiled on this machine.
    """
    predictor = model.compact_predictor("compiled rollouts")
    context, actions = typical_inputs(model, observations=1, candidates=max(COUNTS))
    try:
        for block in predictor.blocks:
            block.compile(dynamic=True)
        for count in COUNTS:
            model.imagine(context, actions[:, :count])
    except (RuntimeError, OSError, ImportError) as error:
        reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise BadInputError(f"compiled rollouts: torch cannot compile on this machine ({reason}).") from error
