"""The routes of the site's pages. The routes of its WebSockets are in ``chat/routing.py``."""

from django.contrib.staticfiles.urls import staticfiles_urlpatterns
from django.urls import include, path

urlpatterns = [
    path("", include("chat.urls")),
    *staticfiles_urlpatterns(),  # empty unless DEBUG
]
