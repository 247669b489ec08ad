"""The Lua scripts of workers: what they do with messages that are pending in a named channel's consumer group.

``ARGV[1]`` is always the consumer group and ``ARGV[2]`` the worker's name in it. Whoever settles a message first makes
sure that it is pending for this worker, so that each script may be sent twice, and a message that another worker has
taken over is left to that one. What each settling script returns:

    1  settled
    0  another worker has it now
    2  nobody has it: it has been settled before, or Redis has lost its data
    3  settled, and an older dead letter had to go for it
"""

from __future__ import annotations

from .scripts import Script

#: The name under which messages wait for their next try. Nobody reads under it.
WAITING_ROOM = "again"

_STATE = """
local function state(id)
    local pending = redis.pcall('XPENDING', KEYS[1], ARGV[1], id, id, 1)
    if pending.err or not pending[1] then return 2 end
    if pending[1][2] ~= ARGV[2] then return 0 end
    return 1
end
"""

_BURY = """
local function bury(id, fields, deliveries, why, most)
    local full = redis.call('XLEN', KEYS[2]) >= tonumber(most)
    local blob = ''
    for i = 1, #fields, 2 do if fields[i] == 'b' then blob = fields[i + 1] end end
    redis.call('XADD', KEYS[2], 'MAXLEN', most, '*', 'b', blob, 'n', deliveries, 'w', why)
    redis.call('XACK', KEYS[1], ARGV[1], id)
    redis.call('XDEL', KEYS[1], id)
    if full then return 3 end
    return 1
end
"""

#: KEYS: stream. ARGV: group, worker, id. Acknowledges and deletes, so that the stream's length is the true backlog.
FINISH = Script(
    _STATE
    + """
local known = state(ARGV[3])
if known == 1 then
    redis.call('XACK', KEYS[1], ARGV[1], ARGV[3])
    redis.call('XDEL', KEYS[1], ARGV[3])
end
return known
"""
)

#: KEYS: stream. ARGV: group, worker, id, who gets it, for how many ms it is to count as idle. Any worker takes it over
#: as soon as it is idle for as long as that worker allows; its number of deliveries stays.
AGAIN = Script(
    _STATE
    + """
local known = state(ARGV[3])
if known == 1 then redis.call('XCLAIM', KEYS[1], ARGV[1], ARGV[4], 0, ARGV[3], 'IDLE', ARGV[5], 'JUSTID') end
return known
"""
)

#: KEYS: stream, dead letters. ARGV: group, worker, id, deliveries, why, how many dead letters there may be.
BURY = Script(
    _STATE
    + _BURY
    + """
local known = state(ARGV[3])
if known ~= 1 then return known end
local entry = redis.call('XRANGE', KEYS[1], ARGV[3], ARGV[3])[1]
return bury(ARGV[3], entry and entry[2] or {}, ARGV[4], ARGV[5], ARGV[6])
"""
)

#: KEYS: stream. ARGV: group, worker, ids... Says that they are being worked on. Returns those that are another's now.
RENEW = Script(
    _STATE
    + """
local lost = {}
for i = 3, #ARGV do
    local known = state(ARGV[i])
    if known == 1 then
        redis.call('XCLAIM', KEYS[1], ARGV[1], ARGV[2], 0, ARGV[i], 'JUSTID')
    elseif known == 0 then
        lost[#lost + 1] = ARGV[i]
    end
end
return lost
"""
)

#: KEYS: stream. ARGV: group, worker. Returns what is pending for it: (id, fields, deliveries).
MINE = Script("""
local mine = {}
for _, row in ipairs(redis.call('XPENDING', KEYS[1], ARGV[1], '-', '+', 10000, ARGV[2])) do
    local entry = redis.call('XRANGE', KEYS[1], row[1], row[1])[1]
    if entry then
        mine[#mine + 1] = {row[1], entry[2], row[4]}
    else
        redis.call('XACK', KEYS[1], ARGV[1], row[1])
    end
end
return mine
""")

#: KEYS: stream, dead letters. ARGV: group, worker, ms after which a silent worker is dead, how many to take, deliveries
#: after which a message is a dead letter, why, how many dead letters there may be.
#: Returns what was taken over, (id, fields, deliveries, from whom), and the ids of what became dead letters.
#: One script, and not XAUTOCLAIM: nobody can come between the look at the number of deliveries and what follows from
#: it, and messages that are being worked on cannot hide those behind them.
TAKE_OVER = Script(
    _BURY
    + """
local taken, buried = {}, {}
local most = tonumber(ARGV[4])
for _, row in ipairs(redis.call('XPENDING', KEYS[1], ARGV[1], 'IDLE', ARGV[3], '-', '+', 2 * most + 10)) do
    local id, owner, deliveries = row[1], row[2], row[4]
    if owner ~= ARGV[2] and #taken < most then
        local entry = redis.call('XRANGE', KEYS[1], id, id)[1]
        if not entry then
            redis.call('XACK', KEYS[1], ARGV[1], id)
        elseif deliveries >= tonumber(ARGV[5]) then
            bury(id, entry[2], deliveries, ARGV[6], ARGV[7])
            buried[#buried + 1] = id
        else
            redis.call('XCLAIM', KEYS[1], ARGV[1], ARGV[2], 0, id)
            taken[#taken + 1] = {id, entry[2], deliveries + 1, owner}
        end
    end
end
return {taken, buried}
"""
)

#: KEYS: stream. ARGV: group, worker, who gets what is pending, for how many ms it is to count as idle, ms after which
#: an idle worker without messages is forgotten. What was not finished does not count as a delivery.
LEAVE = Script("""
local pending = redis.pcall('XPENDING', KEYS[1], ARGV[1], '-', '+', 10000, ARGV[2])
if pending.err then return 0 end
for _, row in ipairs(pending) do
    redis.call('XCLAIM', KEYS[1], ARGV[1], ARGV[3], 0, row[1], 'IDLE', ARGV[4], 'RETRYCOUNT', row[4] - 1, 'JUSTID')
end
for _, row in ipairs(redis.call('XINFO', 'CONSUMERS', KEYS[1], ARGV[1])) do
    local seen = {}
    for i = 1, #row, 2 do seen[row[i]] = row[i + 1] end
    if seen.pending == 0 and (seen.name == ARGV[2] or seen.idle > tonumber(ARGV[5])) then
        redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], seen.name)
    end
end
return #pending
""")

#: KEYS: stream, dead letters. ARGV: the stream's expiry in ms, ids... Sends dead letters once more. Returns how many.
REQUEUE = Script("""
local count = 0
for i = 2, #ARGV do
    local entry = redis.call('XRANGE', KEYS[2], ARGV[i], ARGV[i])[1]
    if entry then
        redis.call('XADD', KEYS[1], '*', 'b', entry[2][2])
        redis.call('PEXPIRE', KEYS[1], ARGV[1])
        redis.call('XDEL', KEYS[2], ARGV[i])
        count = count + 1
    end
end
return count
""")

ALL = (FINISH, AGAIN, BURY, RENEW, MINE, TAKE_OVER, LEAVE, REQUEUE)
