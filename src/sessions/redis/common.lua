-- The beginning of every script. All scripts have the same keys and first arguments.
--
-- birth    LAYOUT-NUMBER-MARK: the cursor before the first event; a register that has lost all gets another mark
-- events   stream, NUMBER-0 of each event: m is its mark, r the record at that time
-- known    hash, the record of each session by its id
-- open     sorted set, the id of each open session by the number of the event that opened it
-- index    sorted set without scores, sorted by bytes: open sessions again by account, name and machine
-- ended    sorted set, the id of each ended session by the time of its end
--
-- A record is the session as it was opened, in JSON, and after a line feed how it ended. Numbers have no gaps. Each
-- change gets a random mark. After a crash or a failover that lost an event, another event may get its number, but
-- not its mark.
local birth, events, known, open, index, ended = unpack(KEYS)
local layout, mark, kept = unpack(ARGV, 1, 3)

local function decimal(number)
    return string.format('%.0f', number)
end

-- Reports damage; nothing was written before.
local function damaged(what)
    error('DAMAGED ' .. what)
end

local function is_sound()
    local count = redis.call('ZCARD', open)
    local all = count + redis.call('ZCARD', ended)
    local is_told = redis.call('EXISTS', events) == 1
    return redis.call('HLEN', known) == all
        and redis.call('ZCARD', index) == 3 * count
        and (is_told or all == 0)
        and (not is_told or redis.call('EXISTS', birth) == 1)
end

-- Returns the number before the first event, and its mark. Numbers of an earlier register are used again, its
-- marks are not. No server's clock is used: one that was ahead would hide later events of others.
local function beginning()
    local value = redis.call('GET', birth)
    if not value then
        value = layout .. '-0-' .. mark
        redis.call('SET', birth, value)
    end
    local number, its_mark = string.match(value, '^%d+%-(%d+)%-(%w+)$')
    return tonumber(number), its_mark
end

local function newest()
    local last = redis.call('XREVRANGE', events, '+', '-', 'COUNT', 1)[1]
    if last then
        return tonumber(string.match(last[1], '^%d+')), last[2][2]
    end
    return beginning()
end

-- Returns true if the event, or the beginning, with this number has this mark: then this register made it.
local function is_known(number, its_mark)
    local entry = redis.call('XRANGE', events, decimal(number) .. '-0', decimal(number) .. '-0')[1]
    if entry then
        return entry[2][2] == its_mark
    end
    local first, first_mark = beginning()
    return number == first and first_mark == its_mark
end

-- Returns the number before the oldest event that is shown.
local function before_oldest(last)
    return last - math.min(redis.call('XLEN', events), kept)
end

-- Keeps one event more than is shown, as proof that this register made a cursor just before the oldest.
local function tell(number, record)
    redis.call('XADD', events, 'MAXLEN', kept + 1, decimal(number) .. '-0', 'm', mark, 'r', record)
end

-- Returns the prefix of index entries that share `value`; 16 digits and the id follow it.
local function section(kind, value)
    return kind .. #value .. ':' .. value .. ':'
end

-- Parses the session in a record; returns nil if it is malformed.
local function session_of(record)
    local is_read, session = pcall(cjson.decode, string.match(record, '^[^\n]*'))
    if is_read and type(session) == 'table' and type(session.guid) == 'string' and type(session.principal) == 'string'
        and type(session.machine or session.host) == 'string' then
        return session
    end
end

local function index_entries(id, session, number)
    local rest = string.format('%016.0f', number) .. ':' .. id
    return section('g', session.guid) .. rest, section('p', session.principal) .. rest,
        section('h', session.machine or session.host) .. rest
end

-- Ends an open session, with the event `number`.
local function finish(id, record, how, at, number)
    local first, second, third = index_entries(id, session_of(record), redis.call('ZSCORE', open, id))
    record = record .. '\n' .. how
    tell(number, record)
    redis.call('HSET', known, id, record)
    redis.call('ZREM', open, id)
    redis.call('ZREM', index, first, second, third)
    redis.call('ZADD', ended, at, id)
    return record
end

-- Returns the sessions that ended for the open session `id`: their events come right before that of its
-- opening.
local function evicted_by(id)
    local number, gone = redis.call('ZSCORE', open, id), {}
    while number do
        number = number - 1
        local entry = redis.call('XRANGE', events, decimal(number) .. '-0', decimal(number) .. '-0')[1]
        local record = entry and entry[2][4] or ''
        local is_read, how = pcall(cjson.decode, string.match(record, '\n(.*)$') or '')
        if not is_read or type(how) ~= 'table' or how.reason ~= 'replaced' or how.detail ~= id then
            break
        end
        table.insert(gone, 1, record)
    end
    return gone
end

-- Forgets sessions that ended before `time`: more than one change adds, and few enough to be cheap.
local function forget(time)
    local old = redis.call('ZRANGEBYSCORE', ended, '-inf', '(' .. time, 'LIMIT', 0, 100)
    for _, id in ipairs(old) do
        redis.call('HDEL', known, id)
        redis.call('ZREM', ended, id)
    end
end

