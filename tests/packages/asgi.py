"""The application of a package's site. Before it serves, it makes the database and two users."""

from importlib import import_module

import django
from django.conf import settings

django.setup()

from django.contrib.auth.models import User  # noqa: E402
from django.core.management import call_command  # noqa: E402

from trio_channels.asgi import get_asgi_application  # noqa: E402
from trio_channels.routing import ProtocolTypeRouter, URLRouter  # noqa: E402

call_command("migrate", run_syncdb=True, verbosity=0)
for name in ("ada", "grace"):
    User.objects.create_user(name, f"{name}@example.org", "a good password")
for command in getattr(settings, "FIRST_COMMANDS", ()):
    call_command(*command)

django_application = get_asgi_application()
module = import_module(settings.ROOT_URLCONF)
websockets = getattr(module, "websocket_urlpatterns", [])
application = getattr(
    module, "application", ProtocolTypeRouter({"http": django_application, "websocket": URLRouter(websockets)})
)
