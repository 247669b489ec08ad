"""The Redis Streams channel layer, its parts, and it against a Redis and a network that fail."""
