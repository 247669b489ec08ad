-- Deletes trackings of a process whose lease has ended.
-- KEYS[1]: inbox of the process
-- KEYS[2]: presence of a group
-- ARGV: references of its trackings
-- Returns: number of trackings deleted; 0 if the process has come again, as it sends its trackings again

if redis.call('EXISTS', KEYS[1]) == 1 then return 0 end
return redis.call('HDEL', KEYS[2], unpack(ARGV))
