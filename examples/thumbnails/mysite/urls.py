"""The routes of the site's pages. The routes of its WebSocket and of its named channel are in ``asgi.py``."""

from django.contrib.staticfiles.urls import staticfiles_urlpatterns
from django.urls import path
from gallery import views

urlpatterns = [
    path("", views.index, name="index"),
    path("samples/", views.sample, name="sample"),
    path("pictures/<uuid:picture>/again/", views.again, name="again"),
    path("pictures/<uuid:picture>/remove/", views.remove, name="remove"),
    path("thumbnails/<uuid:picture>.webp", views.thumbnail, name="thumbnail"),
    *staticfiles_urlpatterns(),  # empty unless DEBUG
]
