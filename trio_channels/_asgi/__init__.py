"""ASGI: legal messages, close codes, and plain responses."""
