"""The site's pages. Its WebSocket and its worker's channel are in ``asgi.py``."""

from django.contrib.staticfiles.urls import staticfiles_urlpatterns
from django.urls import path
from gallery import views

urlpatterns = [
    path("", views.index, name="index"),
    path("thumbnails/<uuid:picture>.webp", views.thumbnail, name="thumbnail"),
    *staticfiles_urlpatterns(),  # nothing unless DEBUG
]
