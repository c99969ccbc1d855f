-- Returns open sessions: their numbers, ids and records.
local kind, value, after, limit = unpack(ARGV, 4, 7)
local numbers, ids = {}, {}
if kind == '' then
    local found = redis.call('ZRANGEBYSCORE', open, '(' .. after, '+inf', 'WITHSCORES', 'LIMIT', 0, limit)
    for place = 1, #found, 2 do
        table.insert(ids, found[place])
        table.insert(numbers, decimal(found[place + 1]))
    end
else
    local before = section(kind, value)
    local first = '[' .. before .. string.format('%016.0f', after + 1)
    for _, entry in ipairs(redis.call('ZRANGEBYLEX', index, first, '(' .. before .. '\255', 'LIMIT', 0, limit)) do
        table.insert(ids, string.sub(entry, #before + 18))
        table.insert(numbers, decimal(string.sub(entry, #before + 1, #before + 16)))
    end
end
local records = {}
for _, id in ipairs(ids) do
    local record = redis.call('HGET', known, id)
    if not record then
        damaged('a session is missing')
    end
    table.insert(records, record)
end
return { numbers, ids, records }
