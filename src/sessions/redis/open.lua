-- Registers or denies a session. Returns the outcome, and then the records of the sessions that ended for it,
-- or the ids and records of those that prevent it.
local id, session, how, since, forgotten, guid, policy, limit = unpack(ARGV, 4, 11)
if redis.call('HEXISTS', known, id) == 1 then
    return { 'registered', unpack(evicted_by(id)) }
end
if not is_sound() then
    damaged('keys are missing')
end

local theirs, before = {}, section('g', guid)
if policy ~= 'unlimited' then
    for _, entry in ipairs(redis.call('ZRANGEBYLEX', index, '[' .. before, '(' .. before .. '\255')) do
        local its_id = string.sub(entry, #before + 18)
        local record = redis.call('HGET', known, its_id)
        if not record then
            damaged('a session is missing')
        end
        if not session_of(record) then
            return { 'unreadable', its_id, record }
        end
        table.insert(theirs, { its_id, record })
    end
end
limit = tonumber(limit)
local answer = { 'registered' }
if policy == 'deny' and #theirs >= limit then
    answer[1] = 'denied'
    for _, session_of_theirs in ipairs(theirs) do
        table.insert(answer, session_of_theirs[1])
        table.insert(answer, session_of_theirs[2])
    end
    return answer
end

local number = newest()
for place = 1, #theirs + 1 - limit do
    number = number + 1
    table.insert(answer, finish(theirs[place][1], theirs[place][2], how, since, number))
end
number = number + 1
tell(number, session)
redis.call('HSET', known, id, session)
redis.call('ZADD', open, decimal(number), id)
local first, second, third = index_entries(id, session_of(session), number)
redis.call('ZADD', index, 0, first, 0, second, 0, third)
forget(forgotten)
return answer
