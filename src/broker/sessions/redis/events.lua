-- Events: whether some are no longer kept, where to go on where there are none; of each its cursor and its record.
local position, after, its_mark, limit = unpack(ARGV, 5, 8)
local last, last_mark = newest()
local answer = { 0, decimal(last) .. '-' .. last_mark, {}, {} }
if position == 'now' then
    return answer
end
local before = last - math.min(redis.call('XLEN', events), kept)
if position == 'after' then
    after = tonumber(after)
    local entry = redis.call('XRANGE', events, decimal(after) .. '-0', decimal(after) .. '-0')[1]
    local found = entry and entry[2][2]
    if not entry then
        local number, first_mark = beginning()
        found = number == after and first_mark
    end
    if after < before or found ~= its_mark then
        answer[1] = 1
    else
        before = after
    end
end
for _, entry in ipairs(redis.call('XRANGE', events, decimal(before + 1) .. '-0', '+', 'COUNT', limit)) do
    table.insert(answer[3], string.match(entry[1], '^%d+') .. '-' .. entry[2][2])
    table.insert(answer[4], entry[2][4])
end
return answer
