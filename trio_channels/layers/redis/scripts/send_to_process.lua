-- include: once.lua
-- Sends a message to one channel of a process.
-- A refusal is noted, so that a command that comes twice gets the same answer twice. The note is four times the number
-- of the command, plus the answer, plus one. There are as many notes as commands that can come again.
-- KEYS[1], ARGV[1], ARGV[2], ARGV[3]: see once.lua
-- KEYS[2]: inbox
-- KEYS[3]: latest refusals of this sender
-- ARGV[4]: capacity of the inbox
-- ARGV[5]: blob
-- Returns: 1 accepted, 0 inbox full, -1 no such inbox; the same again if the command came before

local place = number % 1024
if come_before then
    local note = tonumber(redis.call('HGET', KEYS[3], place)) or 0
    if math.floor(note / 4) == number then return note % 4 - 1 end
    return 1
end
local answer = -1
if redis.call('XLEN', KEYS[2]) >= tonumber(ARGV[4]) then
    answer = 0
elseif redis.call('XADD', KEYS[2], 'NOMKSTREAM', '*', 't', ARGV[1] .. '-' .. ARGV[2], 'b', ARGV[5]) then
    return 1
end
redis.call('HSET', KEYS[3], place, string.format('%.0f', number * 4 + answer + 1))
redis.call('PEXPIRE', KEYS[3], ARGV[3])
return answer
