-- Sends several messages to groups, in order: one entry to the inbox of each process in the group.
-- KEYS[1], ARGV[1...5]: see fan_out.lua
-- KEYS[2...]: groups
-- ARGV[6...]: for each message its number (rising), the index of its group in KEYS, its blob
-- Returns: for each message the number of processes that got it, 0 if it came before, or the error that refused it.
--   An error does not affect the other messages.

local first, width = 6, 3
-- include: fan_out.lua
local answers = {}
for at = first, #ARGV, width do
    local number, group, answer = ARGV[at], ARGV[at + 1], 0
    if members[group].err then
        answer = members[group]
    elseif is_new(number) then
        answer = fan_out(group, sender .. '-' .. number, ARGV[at + 2])
    end
    answers[#answers + 1] = answer
end
return answers
