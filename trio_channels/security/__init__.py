"""Security for connections."""
