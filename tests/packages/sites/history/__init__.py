"""An application whose notes have a history."""
