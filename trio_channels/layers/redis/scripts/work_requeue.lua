-- Sends dead letters to their channel again.
-- KEYS[1]: stream
-- KEYS[2]: dead letters
-- ARGV[1]: expiry of the stream in ms
-- ARGV[2...]: ids of the dead letters
-- Returns: number of dead letters sent

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
