"""The template tags: ``{% load trio_channels %}``."""
