-- Makes a register where there is none, and a new one of what is no longer whole. Returns whether it did that, whether
-- the event that the caller saw last was lost, the cursor of the newest event, and where the register begins. KEYS[7]
-- is for trying out.
local seen, its_mark = unpack(ARGV, 4, 5)
local value = redis.call('GET', birth)
-- Records of the layout before have no machine, and are indexed by the name of their server.
if value and string.match(value, '^1%-') then
    value = layout .. string.sub(value, 2)
    redis.call('SET', birth, value)
end
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
local last, last_mark = newest()
seen = tonumber(seen)
-- One that is older than all that is kept was not lost.
local is_lost = seen and seen >= before_oldest(last) and not is_known(seen, its_mark)
return { sound and 0 or 1, is_lost and 1 or 0, decimal(last) .. '-' .. last_mark, redis.call('GET', birth) or '' }
