"""Small tools for tasks: wake-ups, queues, back-off, exception groups, a watchdog."""

#: Rounds after which a loop lets other tasks run, if its operation (a server's send, a read of data that has come) need
#: not wait. A task switch costs several times as much as such an operation. The loops count for themselves: a shared
#: function would be one more call per message.
YIELD_EVERY = 16
