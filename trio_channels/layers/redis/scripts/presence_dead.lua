-- Finds processes whose lease has ended.
-- KEYS[1]: inbox of the process that asks
-- KEYS[2...]: inboxes of others
-- Returns: the dead ones, as numbers from 0; nil if the process that asks has no inbox: then Redis may have lost all of
--   them, and they come again

if redis.call('EXISTS', KEYS[1]) == 0 then return nil end
local dead = {}
for i = 2, #KEYS do
    if redis.call('EXISTS', KEYS[i]) == 0 then dead[#dead + 1] = i - 2 end
end
return dead
