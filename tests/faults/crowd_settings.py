"""Settings of the processes that ``crowd`` runs in."""

import json
import os

from tests.settings import *  # noqa: F403

TRIO_CHANNELS = json.loads(os.environ.get("TESTS_TRIO_CHANNELS", "{}"))
# Few, so that who does not read is soon known; those who read are waited for with each message.
CHANNEL_LAYERS = {"default": {"BACKEND": "trio_channels.layers.InMemoryChannelLayer", "CONFIG": {"capacity": 20}}}
