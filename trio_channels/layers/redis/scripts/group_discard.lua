-- include: once.lua
-- Removes a process from groups.
-- KEYS[1], ARGV[1], ARGV[2], ARGV[3]: see once.lua
-- KEYS[2...]: groups
-- Returns: number of groups; 0 if the command came before

if come_before then return 0 end
for i = 2, #KEYS do redis.call('HDEL', KEYS[i], ARGV[1]) end
return #KEYS - 1
