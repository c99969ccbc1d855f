-- Creates a register if there is none, and replaces one that is incomplete. Returns whether it replaced one,
-- whether the last event that the caller saw was lost, the cursor of the newest event, and the beginning of
-- the register. KEYS[7] is only for trying commands.
local seen, its_mark = unpack(ARGV, 4, 5)
local value = redis.call('GET', birth)
-- Records of the previous layout have no machine and are indexed by the name of their server.
if value and string.match(value, '^1%-') then
    value = layout .. string.sub(value, 2)
    redis.call('SET', birth, value)
end
if value and string.match(value, '^%d+') ~= layout then
    error('LAYOUT ' .. value)
end

-- A missing right shows here, and not in the middle of a change.
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
-- An event that is older than all kept events was not lost.
local is_lost = seen and seen >= before_oldest(last) and not is_known(seen, its_mark)
return { sound and 0 or 1, is_lost and 1 or 0, decimal(last) .. '-' .. last_mark, redis.call('GET', birth) or '' }
