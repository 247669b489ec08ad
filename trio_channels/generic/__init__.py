"""Consumers for WebSocket and HTTP connections."""
