from .settings import *  # noqa: F403
from .settings import HISTORY

# In memory, also where REDIS_URL is set.
CHANNEL_LAYERS = {
    "default": {
        "BACKEND": "trio_channels.layers.InMemoryChannelLayer",
        "TEST_CONFIG": {"history": HISTORY},
    }
}
