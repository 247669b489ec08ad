"""Small tools for tasks: wake-ups, queues, back-off, exception groups, a watchdog."""

#: A loop around an operation that need not wait (a server's send, a read of what has come) lets other tasks run at the
#: latest after so many rounds. A task switch costs several times what such an operation does otherwise. The loops count
#: by themselves: a shared function would be one more call for each message.
YIELD_EVERY = 16
