"""The Django application."""

from django.apps import AppConfig


class GalleryConfig(AppConfig):
    name = "gallery"
