"""Django's HTTP side on Trio."""
