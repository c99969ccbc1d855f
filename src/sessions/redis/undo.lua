-- Ensures that a session is not open and stays so. Returns the outcome, the record after that, and the
-- records of the sessions that had ended for it.
local id, session, how, at, forgotten = unpack(ARGV, 4, 8)
local record = redis.call('HGET', known, id)
if record and string.find(record, '\n', 1, true) then
    return { 'earlier', record }
end
if record and not session_of(record) then
    return { 'unreadable', id, record }
end
if not is_sound() then
    damaged('keys are missing')
end
local gone, number = {}, newest() + 1
if record then
    gone = evicted_by(id)
    record = finish(id, record, how, at, number)
else
    record = session .. '\n' .. how
    tell(number, record)
    redis.call('HSET', known, id, record)
    redis.call('ZADD', ended, at, id)
end
forget(forgotten)
return { 'now', record, unpack(gone) }
