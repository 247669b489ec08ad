-- include: once.lua
-- Begins and ends trackings of a process, and renews the groups' presence.
-- A group's presence is a hash: reference of a tracking -> blob. The reference begins with the process.
-- KEYS[1], ARGV[1], ARGV[2], ARGV[3]: see once.lua
-- KEYS[2...]: presence of groups
-- ARGV[4]: expiry of a group's presence in ms
-- ARGV[5...]: for each tracking the index of its group in KEYS, its reference, its blob or '' to end it
-- Returns: the groups in which nothing is tracked, as numbers from 0; none if the command came before

local empty = {}
if come_before then return empty end
for at = 5, #ARGV, 3 do
    local group = KEYS[tonumber(ARGV[at])]
    if ARGV[at + 2] == '' then
        redis.call('HDEL', group, ARGV[at + 1])
    else
        redis.call('HSET', group, ARGV[at + 1], ARGV[at + 2])
    end
end
for i = 2, #KEYS do
    if redis.call('PEXPIRE', KEYS[i], ARGV[4]) == 0 then empty[#empty + 1] = i - 2 end
end
return empty
