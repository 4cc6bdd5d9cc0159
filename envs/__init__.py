"""Gymnasium environments; importing this package registers them."""

import gymnasium

ENV_IDS = {
    "pusht": "wm/PushT-v0",
    "chips": "wm/Chips-v0",
    "arm-reach": "wm/ArmReach-v0",
    "arm-push": "wm/ArmPush-v0",
}
"""Short names, as in datasets and models, to Gymnasium ids."""

_ARM = "wm.envs.arm.env:ArmEnv"
_ENTRY_POINTS: dict[str, tuple[str, dict[str, str]]] = {
    "wm/PushT-v0": ("wm.envs.pusht.env:PushTEnv", {}),
    "wm/Chips-v0": ("wm.envs.chips.env:ChipsEnv", {}),
    "wm/ArmReach-v0": (_ARM, {"task": "reach"}),
    "wm/ArmPush-v0": (_ARM, {"task": "push"}),
    "wm/Arm-v0": (_ARM, {}),
}
"""What each id makes; `wm/Arm-v0` is either of the arm's, its task an argument."""

for _id, (_entry_point, _options) in _ENTRY_POINTS.items():
    if _id not in gymnasium.registry:
        gymnasium.register(id=_id, entry_point=_entry_point, kwargs=_options)
