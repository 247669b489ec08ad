"""The Lua scripts: each does in one atomic round trip what several commands would do with gaps between them.

All keys of a script share the shard's hash tag, so that the scripts run on a Redis Cluster too. In what follows ``T``
is that tag, ``{prefix:shard}``.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from ._wire import Argument


@dataclass(frozen=True, slots=True)
class Script:
    """A Lua script, called by its hash.

    Args:
        source: the Lua text; ``KEYS`` and ``ARGV`` as Redis gives them.
    """

    source: str

    @property
    def sha(self) -> str:
        """What ``SCRIPT LOAD`` answers."""
        return hashlib.sha1(self.source.encode(), usedforsecurity=False).hexdigest()

    def __call__(self, *keys: str, args: tuple[Argument, ...] = ()) -> tuple[Argument, ...]:
        """The command that runs it."""
        return ("EVALSHA", self.sha, len(keys), *keys, *args)

    @property
    def load(self) -> tuple[Argument, ...]:
        """The command that makes it known."""
        return ("SCRIPT", "LOAD", self.source)


#: KEYS: inbox. ARGV: lease in ms. Makes the inbox if there is none, and renews its lease.
#: Returns: whether there was one, the id of its last entry ever, and the server's time.
ATTACH = Script("""
local existed = redis.call('EXISTS', KEYS[1])
if existed == 0 then
    local id = redis.call('XADD', KEYS[1], '*', 'new', '1')
    redis.call('XDEL', KEYS[1], id)
end
redis.call('PEXPIRE', KEYS[1], ARGV[1])
local last
local info = redis.call('XINFO', 'STREAM', KEYS[1])
for i = 1, #info, 2 do
    if info[i] == 'last-generated-id' then last = info[i + 1] end
end
return {existed, last, redis.call('TIME')}
""")

#: KEYS: inbox, its lost counter. ARGV: lease in ms, the id up to which entries have been read.
#: Returns: 0 if the inbox is gone, else 1; and how many messages were refused since it was last asked.
ACK = Script("""
local alive = redis.call('PEXPIRE', KEYS[1], ARGV[1])
if alive == 1 then redis.call('XTRIM', KEYS[1], 'MINID', ARGV[2]) end
local lost = redis.call('GET', KEYS[2])
if lost then redis.call('DEL', KEYS[2]) end
return {alive, tonumber(lost) or 0}
""")

#: KEYS: groups. ARGV: the process, group expiry in ms.
GADD = Script("""
for i = 1, #KEYS do
    redis.call('SADD', KEYS[i], ARGV[1])
    redis.call('PEXPIRE', KEYS[i], ARGV[2])
end
return #KEYS
""")

#: KEYS: groups. ARGV: the process.
GDEL = Script("""
for i = 1, #KEYS do redis.call('SREM', KEYS[i], ARGV[1]) end
return #KEYS
""")

#: KEYS: group. ARGV: the inboxes' common prefix, their capacity, the lost counters' expiry in ms, token, blob.
#: Returns: to how many processes it went, how many were full, how many were dead (and have been removed).
GSEND = Script("""
local sent, full, dead = 0, 0, 0
local capacity = tonumber(ARGV[2])
for _, process in ipairs(redis.call('SMEMBERS', KEYS[1])) do
    local inbox = ARGV[1] .. process
    if redis.call('XLEN', inbox) >= capacity then
        local lost = inbox .. ':lost'
        redis.call('INCR', lost)
        redis.call('PEXPIRE', lost, ARGV[3])
        full = full + 1
    elseif redis.call('XADD', inbox, 'NOMKSTREAM', '*', 't', ARGV[4], 'b', ARGV[5]) then
        sent = sent + 1
    else
        redis.call('SREM', KEYS[1], process)
        dead = dead + 1
    end
end
return {sent, full, dead}
""")

#: KEYS: inbox. ARGV: capacity, token, blob. Returns: 1 accepted, 0 full, -1 no such inbox.
SEND = Script("""
if redis.call('XLEN', KEYS[1]) >= tonumber(ARGV[1]) then return 0 end
if redis.call('XADD', KEYS[1], 'NOMKSTREAM', '*', 't', ARGV[2], 'b', ARGV[3]) then return 1 end
return -1
""")

#: KEYS: stream, hash of the senders' last numbers. ARGV: capacity, sender, number, blob, expiry in ms.
#: Returns: 1 accepted, 0 full. A number that is not above the sender's last was accepted before.
NSEND = Script("""
local last = tonumber(redis.call('HGET', KEYS[2], ARGV[2])) or -1
if tonumber(ARGV[3]) <= last then return 1 end
if redis.call('XLEN', KEYS[1]) >= tonumber(ARGV[1]) then return 0 end
redis.call('XADD', KEYS[1], '*', 'b', ARGV[4])
redis.call('PEXPIRE', KEYS[1], ARGV[5])
redis.call('HSET', KEYS[2], ARGV[2], ARGV[3])
redis.call('PEXPIRE', KEYS[2], ARGV[5])
return 1
""")

#: KEYS: stream. ARGV: consumer group, id. Acknowledges and deletes, so that the stream's length is the true backlog.
DONE = Script("""
redis.call('XACK', KEYS[1], ARGV[1], ARGV[2])
return redis.call('XDEL', KEYS[1], ARGV[2])
""")

#: KEYS: inbox, its lost counter. ARGV: 1 if its owner is to be told, the counter's expiry in ms. Empties an inbox.
EMPTY = Script("""
local lost = redis.call('XLEN', KEYS[1])
redis.call('XTRIM', KEYS[1], 'MAXLEN', 0)
if ARGV[1] == '1' then
    redis.call('INCRBY', KEYS[2], math.max(lost, 1))
    redis.call('PEXPIRE', KEYS[2], ARGV[2])
end
return lost
""")

ALL: tuple[Script, ...] = (ATTACH, ACK, GADD, GDEL, GSEND, SEND, NSEND, DONE, EMPTY)
