"""Gymnasium environments; importing this package registers them."""

import gymnasium

ENV_IDS = {"pusht": "wm/PushT-v0"}
"""Short names of the command line and of datasets, to Gymnasium ids."""

if ENV_IDS["pusht"] not in gymnasium.registry:
    gymnasium.register(id=ENV_IDS["pusht"], entry_point="wm.envs.pusht.env:PushTEnv")
