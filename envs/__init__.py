"""Gymnasium environments; importing this package registers them."""

import gymnasium

ENV_IDS = {"pusht": "wm/PushT-v0", "chips": "wm/Chips-v0"}
"""Short names, as in datasets and models, to Gymnasium ids."""

COMMANDED = {name: ENV_IDS[name] for name in ("pusht",)}
"""Those that the commands collect, plan and evaluate in."""

_ENTRY_POINTS = {"pusht": "wm.envs.pusht.env:PushTEnv", "chips": "wm.envs.chips.env:ChipsEnv"}

for _name, _id in ENV_IDS.items():
    if _id not in gymnasium.registry:
        gymnasium.register(id=_id, entry_point=_ENTRY_POINTS[_name])
