-- Fragment: expire(history, kept, entries) deletes the messages of a history that are too old or too many, and renews its
-- time limit. The last message that is too old is kept, as the position of those who have missed nothing since.

local function expire(history, kept, entries)
    local time = redis.call('TIME')
    local oldest = string.format('%.0f', math.max(time[1] * 1000 + math.floor(time[2] / 1000) - kept, 0))
    local anchor = redis.call('XREVRANGE', history, oldest, '-', 'COUNT', 1)[1]
    if anchor then redis.call('XTRIM', history, 'MINID', '=', anchor[1]) end
    redis.call('XTRIM', history, 'MAXLEN', '=', entries)
    redis.call('PEXPIRE', history, string.format('%.0f', kept * 1.5))
    return oldest
end
