-- Ends an open session whose record cannot be read, with the data that the index has of it. Reads the whole
-- index.
local id, how, at, forgotten = unpack(ARGV, 4, 7)
local entries, values = {}, {}
for _, entry in ipairs(redis.call('ZRANGEBYLEX', index, '-', '+')) do
    if string.sub(entry, -#id - 1) == ':' .. id then
        local kind, length, rest = string.match(entry, '^(%a)(%d+):(.*)$')
        table.insert(entries, entry)
        values[kind] = string.sub(rest, 1, length)
    end
end
if not redis.call('ZSCORE', open, id) then
    return 0
end
local record = cjson.encode({
    id = id, user = values.p or '', principal = values.p or '', guid = values.g or '', service = '', rhost = '', tty = '',
    host = '', machine = values.h or '', uid = 0, pid = 0, started = 0, since = 0,
}) .. '\n' .. how
tell(newest() + 1, record)
redis.call('HSET', known, id, record)
redis.call('ZREM', open, id)
if #entries > 0 then
    redis.call('ZREM', index, unpack(entries))
end
redis.call('ZADD', ended, at, id)
forget(forgotten)
return 1
