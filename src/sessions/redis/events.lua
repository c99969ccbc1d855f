-- Returns events: whether some are no longer kept, the cursor to continue at if there are none, and the
-- cursors and records.
local position, after, its_mark, limit = unpack(ARGV, 4, 7)
local last, last_mark = newest()
local answer = { 0, decimal(last) .. '-' .. last_mark, {}, {} }
if position == 'now' then
    return answer
end
local before = before_oldest(last)
if position == 'after' then
    after = tonumber(after)
    if after < before or not is_known(after, its_mark) then
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
