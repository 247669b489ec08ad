"""The routes of the site's pages. The routes of its WebSockets are in ``board/routing.py``."""

from django.contrib import admin
from django.contrib.staticfiles.urls import staticfiles_urlpatterns
from django.urls import include, path

urlpatterns = [
    path("", include("board.urls")),
    path("admin/", admin.site.urls),
    *staticfiles_urlpatterns(),  # empty unless DEBUG
]
