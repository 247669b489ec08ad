"""ASGI: its legal messages, and plain responses."""
