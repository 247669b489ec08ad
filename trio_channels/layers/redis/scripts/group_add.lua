-- include: once.lua
-- Adds a process to groups.
-- KEYS[1], ARGV[1], ARGV[2], ARGV[3]: see once.lua
-- KEYS[2...]: groups
-- ARGV[4]: expiry of a group in ms
-- Returns: number of groups; 0 if the command came before

if come_before then return 0 end
for i = 2, #KEYS do
    redis.call('SADD', KEYS[i], ARGV[1])
    redis.call('PEXPIRE', KEYS[i], ARGV[4])
end
return #KEYS - 1
