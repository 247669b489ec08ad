-- Fragment: recognises a command that comes twice.
-- A command comes twice when the answer to it was lost, or when its connection was thought dead. The commands of a
-- process come in the order of their numbers, so one number per process tells which commands were carried out.
-- KEYS[1]: the number of the sender's last command; GROUP_SEND may add a second number
-- ARGV[1]: sender, a process
-- ARGV[2]: number of this command
-- ARGV[3]: ms for which Redis remembers the number

local number = tonumber(ARGV[2])
local note = redis.call('GET', KEYS[1]) or '0'
local come_before = tonumber(string.match(note, '^%d+')) >= number
if not come_before then
    redis.call('SET', KEYS[1], ARGV[2] .. (string.match(note, ' %d+') or ''), 'PX', ARGV[3])
end
