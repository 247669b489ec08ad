-- As GROUP_KEEP, for one message that somebody may send again who does not know that it has arrived: it is sent and kept
-- once. Redis notes the answer under the identity of the message for as long as the history keeps the message.
-- KEYS[1...4], ARGV: see group_keep.lua
-- KEYS[5]: the note
-- Returns: the answer of GROUP_KEEP, the first time and again

local noted = redis.call('GET', KEYS[5])
if noted then return noted end
local function send_and_keep()
-- include: group_keep.lua
end
local answer = send_and_keep()[1]
if type(answer) == 'string' and answer ~= '' then
    redis.call('SET', KEYS[5], answer, 'PX', math.abs(tonumber(ARGV[#ARGV])))
end
return answer
