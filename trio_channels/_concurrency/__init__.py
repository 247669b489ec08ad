"""Small tools for tasks: wake-ups, queues, back-off, exception groups, a watchdog."""
