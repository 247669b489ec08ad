"""One connection: its events, its tasks, and its end."""
