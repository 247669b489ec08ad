"""Checks of connections before they reach an application."""
