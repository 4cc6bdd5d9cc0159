"""A compact predictor's rollouts compiled by torch (`torch.compile`)."""

from __future__ import annotations

from wm.errors import BadInputError
from wm.int8 import remembered
from wm.model import WorldModel
from wm.predictor import Predictor
from wm.types import Latent


def use_compiled(model: WorldModel) -> None:
    """Roll a model out with compiled residual blocks from now on; it is changed in place, its weights are not.

    They are compiled here, which takes half a minute and a C++ compiler, so that no search of one problem has to wait
    for it; what gradients, or several problems at once, need is compiled by the first search that needs it.

    Raises:
        BadInputError: another form than the compact one, or nothing can be compiled on this machine.
    """
    predictor = model.joint.predictor
    if not isinstance(predictor, Predictor):
        raise BadInputError(f"compiled rollouts: expected a model of form 'compact', came '{model.spec.form}'.")
    context, actions = remembered(model)
    one = Latent(context.tokens[:1], None if context.proprio is None else context.proprio[:1])
    try:
        for block in predictor.blocks:
            block.compile(dynamic=True)
        for count in (len(actions), len(actions) // 2, 1):  # one candidate alone is compiled for by itself
            model.imagine(one, actions[None, :count, 0])
    except (RuntimeError, OSError, ImportError) as error:
        reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise BadInputError(f"compiled rollouts: torch cannot compile on this machine ({reason}).") from error
