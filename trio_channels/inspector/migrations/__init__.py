"""The tables of the inspector: none, but the content type of its permissions."""
