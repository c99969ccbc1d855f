-- Ends a session. Returns the outcome, and the record after that.
local id, how, at, forgotten = unpack(ARGV, 4, 7)
local record = redis.call('HGET', known, id)
if not record then
    return { 'unknown' }
end
if string.find(record, '\n', 1, true) then
    return { 'earlier', record }
end
if not session_of(record) then
    return { 'unreadable', id, record }
end
if not is_sound() then
    damaged('keys are missing')
end
record = finish(id, record, how, at, newest() + 1)
forget(forgotten)
return { 'now', record }
