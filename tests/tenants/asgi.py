"""The application of the server."""

from trio_channels.asgi import get_asgi_application
from trio_channels.routing import ProtocolTypeRouter

application = ProtocolTypeRouter({"http": get_asgi_application()})
