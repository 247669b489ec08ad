import os

from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter
from trio_channels import tracing
from trio_channels.asgi import get_asgi_application
from trio_channels.routing import ProtocolTypeRouter

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "mysite.settings")

provider = TracerProvider()
provider.add_span_processor(BatchSpanProcessor(ConsoleSpanExporter()))  # or the exporter of your backend
trace.set_tracer_provider(provider)
tracing.enable()

application = ProtocolTypeRouter({"http": get_asgi_application()})
