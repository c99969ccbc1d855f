-- Makes a register where there is none, and a new one of what is no longer whole: first whether it did that, then the
-- number of the newest event, and where the register begins. KEYS[7] is for trying out.
local value = redis.call('GET', birth)
if value and string.match(value, '^%d+') ~= layout then
    error('LAYOUT ' .. value)
end

-- A right that is missing shows here, and not in the middle of a change.
local tries = {
    { 'SET', '' }, { 'DEL' }, { 'EXISTS' },
    { 'XADD', 'MAXLEN', 1, '1-0', 'm', '' }, { 'XREVRANGE', '+', '-', 'COUNT', 1 }, { 'XRANGE', '-', '+' }, { 'XLEN' },
    { 'DEL' },
    { 'HSET', 'a', '' }, { 'HGET', 'a' }, { 'HEXISTS', 'a' }, { 'HLEN' }, { 'HDEL', 'a' },
    { 'ZADD', 0, 'a' }, { 'ZSCORE', 'a' }, { 'ZCARD' }, { 'ZRANGEBYSCORE', 0, 0 }, { 'ZRANGEBYLEX', '-', '+' },
    { 'ZREM', 'a' },
}
for _, try in ipairs(tries) do
    redis.call(try[1], KEYS[7], unpack(try, 2))
end

local sound = is_sound()
if not sound then
    redis.call('DEL', birth, events, known, open, index, ended)
end
beginning()
local last = newest()
return { sound and 0 or 1, decimal(last), redis.call('GET', birth) or '' }
