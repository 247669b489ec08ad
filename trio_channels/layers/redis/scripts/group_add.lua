-- include: once.lua
-- Adds a process to groups, or renews its memberships.
-- KEYS[1], ARGV[1], ARGV[2], ARGV[3]: see once.lua
-- KEYS[2]: inbox of the process
-- KEYS[3...]: groups
-- ARGV[4]: expiry of a group in ms
-- ARGV[5...]: generation of each membership
-- Returns: the groups that did not have the process, as numbers from 0; none if the command came before, or if the
--   inbox is gone, as its reader finds that out

local new = {}
if come_before then return new end
for i = 3, #KEYS do
    if redis.call('HSET', KEYS[i], ARGV[1], ARGV[i + 2]) == 1 then new[#new + 1] = i - 3 end
    redis.call('PEXPIRE', KEYS[i], ARGV[4])
end
if redis.call('EXISTS', KEYS[2]) == 0 then return {} end
return new
