"""The Lua scripts: each does in one atomic round trip what several commands would do with gaps between them.

All keys of a script share the shard's hash tag, so that the scripts run on a Redis Cluster too. In what follows ``T``
is that tag, ``{prefix:shard}``.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

from .connection import Argument


@dataclass(frozen=True, slots=True)
class Script:
    """A Lua script, called by its hash.

    Args:
        source: the Lua text; ``KEYS`` and ``ARGV`` as Redis gives them.

    Attributes:
        sha: what ``SCRIPT LOAD`` answers.
    """

    source: str
    sha: str = field(init=False)

    def __post_init__(self) -> None:
        sha = hashlib.sha1(self.source.encode(), usedforsecurity=False).hexdigest()
        object.__setattr__(self, "sha", sha)

    def __call__(self, *keys: str | bytes, args: tuple[Argument, ...] = ()) -> tuple[Argument, ...]:
        """The command that runs it."""
        return ("EVALSHA", self.sha, len(keys), *keys, *args)

    @property
    def load(self) -> tuple[Argument, ...]:
        """The command that makes it known."""
        return ("SCRIPT", "LOAD", self.source)


#: KEYS: inbox, its state. ARGV: lease in ms, the id of an entry. Makes the inbox if there is none, and renews its
#: lease.
#: Returns: whether there was one, the id of its last entry ever, the server's time, how many messages were ever
#: refused, the number of the last ACK, whether that entry is there.
ATTACH = Script("""
local existed = redis.call('EXISTS', KEYS[1])
if existed == 0 then
    redis.call('DEL', KEYS[2])
    local id = redis.call('XADD', KEYS[1], '*', 'new', '1')
    redis.call('XDEL', KEYS[1], id)
end
redis.call('PEXPIRE', KEYS[1], ARGV[1])
local last
local info = redis.call('XINFO', 'STREAM', KEYS[1])
for i = 1, #info, 2 do
    if info[i] == 'last-generated-id' then last = info[i + 1] end
end
local state = redis.call('HMGET', KEYS[2], 'lost', 'ack')
local there = #redis.call('XRANGE', KEYS[1], ARGV[2], ARGV[2])
return {existed, last, redis.call('TIME'), tonumber(state[1]) or 0, tonumber(state[2]) or 0, there}
""")

#: KEYS: inbox, its state. ARGV: the first id that has not been read, the number of this ACK, lease in ms, 1 if the
#: inbox is to be looked at. It is looked at, too, when there is nothing to trim.
#: Returns: nothing if it has not been looked at; else 0 if the inbox is gone and else 1; the server's time; and how
#: many entries have left the inbox so far in other ways than by one of these scripts or unknown (-1, before Redis
#: 7.0): more than were read, if somebody trims it.
#: The number stands there for ATTACH: a server that has an older one has lost what came later.
ACK = Script("""
local trimmed = redis.call('XTRIM', KEYS[1], 'MINID', ARGV[1])
local look = ARGV[4] == '1' or trimmed == 0
if look and redis.call('PEXPIRE', KEYS[1], ARGV[3]) == 0 then return {0, redis.call('TIME'), -1} end
redis.call('HSET', KEYS[2], 'ack', ARGV[2])
if not look then return {} end
redis.call('PEXPIRE', KEYS[2], ARGV[3])
local left = -1
local info = redis.call('XINFO', 'STREAM', KEYS[1])
for i = 1, #info, 2 do
    if info[i] == 'entries-added' then
        local taken = tonumber(redis.call('HGET', KEYS[2], 'taken')) or 0
        left = info[i + 1] - redis.call('XLEN', KEYS[1]) - taken
    end
end
return {1, redis.call('TIME'), left}
""")

#: A command may come twice: when the answer to it was lost, or over a connection that was thought dead. Commands of a
#: process come in the order of their numbers, so that one number tells what has been carried out.
#: KEYS[1]: that number, perhaps with another one; see GSEND. ARGV: the process, the number of this command, ms for
#: which that is remembered.
_COME_BEFORE = """
local number = tonumber(ARGV[2])
local note = redis.call('GET', KEYS[1]) or '0'
local come_before = tonumber(string.match(note, '^%d+')) >= number
if not come_before then
    redis.call('SET', KEYS[1], ARGV[2] .. (string.match(note, ' %d+') or ''), 'PX', ARGV[3])
end
"""

#: KEYS: see above, groups. ARGV: see above, group expiry in ms.
GADD = Script(
    _COME_BEFORE
    + """
if come_before then return 0 end
for i = 2, #KEYS do
    redis.call('SADD', KEYS[i], ARGV[1])
    redis.call('PEXPIRE', KEYS[i], ARGV[4])
end
return #KEYS - 1
"""
)

#: KEYS: see above, groups. ARGV: see above.
GDEL = Script(
    _COME_BEFORE
    + """
if come_before then return 0 end
for i = 2, #KEYS do redis.call('SREM', KEYS[i], ARGV[1]) end
return #KEYS - 1
"""
)

#: Sends several messages, in order. KEYS: as above, groups. ARGV: the process, ms for which the numbers are remembered,
#: the inboxes' common prefix, their capacity, the lease in ms; and for each message its number, which of the keys is
#: its group, its blob. The numbers rise.
#: Returns, for each: to how many processes it went, 0 if it has come before; or why it was refused, which does not
#: concern the others.
#: A full inbox gets a mark behind its last message: how many were ever refused. Further refusals replace it, so that it
#: stands where they are missing, and is read, and read again, as safely as the messages are.
#: While the slot moves to another node of a cluster, keys that have gone already cannot be looked at. Then a message is
#: not sent; but others behind it may be, and their numbers are higher. So it is noted up to which number a message may
#: come late. Such messages are sent whenever they come; receivers know them by their tokens.
GSEND = Script("""
local sender, prefix, capacity = ARGV[1], ARGV[3], tonumber(ARGV[4])
local last, count = ARGV[#ARGV - 2], (#ARGV - 5) / 3
local note = redis.call('SET', KEYS[1], last, 'PX', ARGV[2], 'GET') or '0'
local highest, late_until = tonumber(note), 0
if not highest then
    highest = tonumber(string.match(note, '^%d+'))
    late_until = tonumber(string.match(note, ' (%d+)'))
end
local late = late_until
local members, lengths = {}, {}
for at = 6, #ARGV, 3 do
    local group = ARGV[at + 1]
    local found = members[group]
    if not found then
        found = redis.pcall('SMEMBERS', KEYS[tonumber(group)])
        for _, process in ipairs(found) do
            local inbox = prefix .. process
            local length = redis.pcall('XLEN', inbox)
            lengths[process] = length
            if type(length) == 'number' and length + count > capacity then
                length = redis.pcall('EXISTS', inbox .. ':state')
            end
            if type(length) == 'table' then
                found = length
                found.moves = string.find(found.err, 'non local key', 1, true)
                if found.moves then found.err = 'TRYAGAIN an inbox cannot be looked at: ' .. found.err end
                break
            end
        end
        members[group] = found
    end
    if found.moves then late = math.max(late, tonumber(ARGV[at])) end
end
if late > 0 or highest > tonumber(last) then
    note = string.format(late > 0 and '%.0f %.0f' or '%.0f', math.max(tonumber(last), highest), late)
    redis.call('SET', KEYS[1], note, 'PX', ARGV[2])
end
local function refuse(inbox)
    local state = inbox .. ':state'
    local lost = redis.call('HINCRBY', state, 'lost', 1)
    redis.call('PEXPIRE', state, ARGV[5])
    local newest = redis.call('XREVRANGE', inbox, '+', '-', 'COUNT', 1)[1]
    if newest and newest[2][1] == 'l' then
        redis.call('HINCRBY', state, 'taken', redis.call('XDEL', inbox, newest[1]))
    end
    redis.call('XADD', inbox, 'NOMKSTREAM', '*', 'l', lost)
end
local answers = {}
for at = 6, #ARGV, 3 do
    local number, group, sent = ARGV[at], ARGV[at + 1], 0
    local found = members[group]
    if found.err then
        sent = found
    elseif tonumber(number) > highest or tonumber(number) <= late_until then
        local token = sender .. '-' .. number
        for _, process in ipairs(found) do
            local inbox = prefix .. process
            if lengths[process] == 'dead' then
                redis.call('SREM', KEYS[tonumber(group)], process)
            elseif lengths[process] >= capacity then
                refuse(inbox)
            elseif redis.call('XADD', inbox, 'NOMKSTREAM', '*', 't', token, 'b', ARGV[at + 2]) then
                lengths[process] = lengths[process] + 1
                sent = sent + 1
            else
                lengths[process] = 'dead'
                redis.call('SREM', KEYS[tonumber(group)], process)
            end
        end
    end
    answers[#answers + 1] = sent
end
return answers
""")

#: KEYS: inbox, see above, this sender's latest refusals. ARGV: see above, capacity, blob.
#: Returns: 1 accepted, 0 full, -1 no such inbox; the same if it has come before. Of refusals, that needs a note: four
#: times the number plus one more than the answer, and no more notes than can come again.
SEND = Script(
    _COME_BEFORE.replace("KEYS[1]", "KEYS[2]")
    + """
local place = number % 1024
if come_before then
    local note = tonumber(redis.call('HGET', KEYS[3], place)) or 0
    if math.floor(note / 4) == number then return note % 4 - 1 end
    return 1
end
local answer = -1
if redis.call('XLEN', KEYS[1]) >= tonumber(ARGV[4]) then
    answer = 0
elseif redis.call('XADD', KEYS[1], 'NOMKSTREAM', '*', 't', ARGV[1] .. '-' .. ARGV[2], 'b', ARGV[5]) then
    return 1
end
redis.call('HSET', KEYS[3], place, string.format('%.0f', number * 4 + answer + 1))
redis.call('PEXPIRE', KEYS[3], ARGV[3])
return answer
"""
)

#: KEYS: stream, sorted set of tokens by time. ARGV: capacity, token, blob, the stream's expiry in ms, a message's
#: expiry in ms, ms for which a token is remembered. Returns: 1 accepted (now or before), 0 full; and how many expired
#: messages made room. What has been handed out to somebody does not expire.
NSEND = Script("""
if redis.call('ZSCORE', KEYS[2], ARGV[2]) then return {1, 0} end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local expired = 0
if redis.call('XLEN', KEYS[1]) >= tonumber(ARGV[1]) then
    local unread = '-'
    for _, row in ipairs(redis.call('XINFO', 'GROUPS', KEYS[1])) do
        for i = 1, #row, 2 do if row[i] == 'last-delivered-id' then unread = '(' .. row[i + 1] end end
    end
    local oldest = string.format('%.0f', math.max(now - ARGV[5] - 1, 0))
    for _, entry in ipairs(redis.call('XRANGE', KEYS[1], unread, oldest, 'COUNT', 1000)) do
        expired = expired + redis.call('XDEL', KEYS[1], entry[1])
    end
    if redis.call('XLEN', KEYS[1]) >= tonumber(ARGV[1]) then return {0, expired} end
end
redis.call('XADD', KEYS[1], '*', 'b', ARGV[3])
redis.call('PEXPIRE', KEYS[1], ARGV[4])
redis.call('ZADD', KEYS[2], string.format('%.0f', now), ARGV[2])
redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', string.format('%.0f', now - ARGV[6]))
redis.call('PEXPIRE', KEYS[2], ARGV[6])
return {1, expired}
""")

#: KEYS: stream, the consumer's note of what it did last. ARGV: consumer group, consumer, id, the note's expiry in ms.
#: Acknowledges and deletes, so that the stream's length is the true backlog.
#: Returns: 1 done (now or before), 0 another consumer has it or had it; and the server's time.
DONE = Script("""
if redis.call('GET', KEYS[2]) ~= ARGV[3] then
    local pending = redis.pcall('XPENDING', KEYS[1], ARGV[1], ARGV[3], ARGV[3], 1)
    if not pending.err then  -- else everything is gone, and nobody else can have it
        if not pending[1] or pending[1][2] ~= ARGV[2] then return {0, redis.call('TIME')} end
        redis.call('XACK', KEYS[1], ARGV[1], ARGV[3])
        redis.call('XDEL', KEYS[1], ARGV[3])
    end
    redis.call('SET', KEYS[2], ARGV[3], 'PX', ARGV[4])
end
return {1, redis.call('TIME')}
""")

#: KEYS: stream, the consumer's note. ARGV: consumer group, consumer. Forgets a consumer, unless messages wait for it.
QUIT = Script("""
redis.call('DEL', KEYS[2])
local consumers = redis.pcall('XINFO', 'CONSUMERS', KEYS[1], ARGV[1])
if consumers.err then return 0 end
for _, row in ipairs(consumers) do
    local name, pending
    for i = 1, #row, 2 do
        if row[i] == 'name' then name = row[i + 1] elseif row[i] == 'pending' then pending = row[i + 1] end
    end
    if name == ARGV[2] and pending == 0 then
        redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], ARGV[2])
        return 1
    end
end
return 0
""")

#: KEYS: inbox, its state. ARGV: 1 if its owner is to be told. Empties an inbox.
EMPTY = Script("""
local waiting = redis.call('XLEN', KEYS[1])
redis.call('XTRIM', KEYS[1], 'MAXLEN', 0)
redis.call('HINCRBY', KEYS[2], 'taken', waiting)
if ARGV[1] == '1' then
    local lost = redis.call('HINCRBY', KEYS[2], 'lost', waiting)
    redis.call('XADD', KEYS[1], 'NOMKSTREAM', '*', 'l', lost, 'f', '1')
end
return waiting
""")

ALL: tuple[Script, ...] = (ATTACH, ACK, GADD, GDEL, GSEND, SEND, NSEND, DONE, QUIT, EMPTY)
