-- What every script begins with: the clock, a stream as a table, its chain of forks, retention, and its end.
--
-- Keys, below the prefix:  stream:<path> hash, what the stream is      events:<path> stream, an entry <number>-0 an event
--                          producers:<path> hash, id -> epoch seq last  keys:<path> hash, key -> first last digest
--                          keyed:<path> zset, key by first              paths zset, the streams that are there, by name
--                          changes: the channel on which every change publishes its path
-- An entry holds t (type), d (data), a (when it was appended, µs since 1970) and s (how many bytes lie before it).
-- Nothing is written before all is checked: a script that fails leaves nothing behind. The first write may be refused
-- (OOM, READONLY, MISCONF), later ones are not (Redis looks only at the first write of a script).
local PREFIX = ARGV[1]
local ASKED = cjson.decode(ARGV[2])
local time = redis.call('TIME')
local NOW = time[1] * 1000000 + time[2]

local FIELDS = {
  -- offsets: `lives` are the earlier ones as "upto=life,", `life` the one of what is appended now, in the run `run`
  'life', 'lives', 'run', 'tail', 'first', 'base', 'bytes', 'at',
  'closed', 'deleted', 'refs', 'touched', 'seq', 'oldest', 'oldest_at', 'oldest_start',
  'content_type', 'ttl_s', 'expires_at', 'forked_from', 'fork_number', 'fork_sub_offset', 'inherits', 'at_tail',
  'keep_events', 'keep_bytes', 'keep_s',
}
local TEXTS = {life = 1, lives = 1, run = 1, seq = 1, content_type = 1, forked_from = 1}
local KINDS = {'stream', 'events', 'producers', 'keys', 'keyed'}
local loaded = {}

local function key(kind, path) return PREFIX .. kind .. ':' .. path end

local function id(number) return string.format('%.0f-0', number) end

local function load(path)
  if loaded[path] then return loaded[path] end
  local flat = redis.call('HGETALL', key('stream', path))
  if #flat == 0 then return nil end
  local s = {path = path, was = {}}
  for i = 1, #flat, 2 do
    local value = TEXTS[flat[i]] and flat[i + 1] or tonumber(flat[i + 1])
    s[flat[i]], s.was[flat[i]] = value, value
  end
  loaded[path] = s
  return s
end

local function deadline(s)
  local at = s.ttl_s and s.touched + s.ttl_s * 1000000
  local fixed = s.expires_at and s.expires_at * 1000000
  return at and fixed and math.min(at, fixed) or at or fixed
end

local function expired(s)
  local at = deadline(s)
  return at and at <= NOW
end

-- The stream, with `gone` when only its forks know it. Or nil, and as a second value one whose time has come.
local function find(path)
  local s = load(path)
  if not s then return nil end
  local over = expired(s)
  if over and s.refs == 0 and s.deleted == 0 then return nil, s end
  s.gone = over or s.deleted == 1
  return s
end

-- Let Redis itself free what nobody reads any more. Not forks and their sources: those count each other.
local function lease(s)
  local at = s.refs == 0 and s.forked_from == '' and deadline(s)
  if not at or at > 1e18 then return end
  for _, kind in ipairs(KINDS) do redis.call('PEXPIREAT', key(kind, s.path), string.format('%.0f', at / 1000)) end
end

local function save(s)
  local flat = {}
  for _, name in ipairs(FIELDS) do
    if s[name] ~= nil and s[name] ~= (s.was or {})[name] then
      flat[#flat + 1] = name
      flat[#flat + 1] = s[name]
    end
  end
  if #flat > 0 then redis.call('HSET', key('stream', s.path), unpack(flat)) end
  lease(s)
end

local function publish(s) redis.call('PUBLISH', PREFIX .. 'changes', s.path) end

-- Delete; with the last fork also a source that was deleted, or has expired, before.
local function forget(s)
  redis.call('ZREM', PREFIX .. 'paths', s.path)
  publish(s)
  if s.refs > 0 then
    redis.call('HSET', key('stream', s.path), 'deleted', 1)
    redis.call('UNLINK', key('producers', s.path), key('keys', s.path), key('keyed', s.path))
    return
  end
  for _, kind in ipairs(KINDS) do redis.call('UNLINK', key(kind, s.path)) end
  loaded[s.path] = nil
  local source = s.forked_from ~= '' and load(s.forked_from)
  if not source then return end
  source.refs = redis.call('HINCRBY', key('stream', source.path), 'refs', -1)
  if source.refs == 0 then
    if source.deleted == 1 or expired(source) then forget(source) else lease(source) end
  end
end

-- The type without its parameters.
local function media_type(text) return string.lower(string.match(text .. ';', '^%s*([^;]-)%s*;')) end

-- Offsets: which life an event's number belongs to.

local function life_of(s, number)
  for upto, life in string.gmatch(s.lives, '(%d+)=(%w+),') do
    if number <= tonumber(upto) then return life end
  end
  return s.life
end

local function known(s, offset)
  return offset.number <= s.tail and life_of(s, offset.number) == offset.life
end

-- Who answers now: another process, or one that was a replica before, may have lost the newest events.
local function run()
  local server, replication = redis.pcall('INFO', 'server'), redis.pcall('INFO', 'replication')
  if type(server) ~= 'string' or type(replication) ~= 'string' then return 'unknown' end -- an ACL without INFO
  local text = string.match(server, 'run_id:(%x+)') .. (string.match(replication, 'master_replid:(%x+)') or '')
  return string.sub(redis.sha1hex(text), 1, 16)
end

-- What is appended in another run gets another life, so a lost offset is unknown and never taken for a new event's.
local function renew(s)
  local now = run()
  if s.run == now then return end
  s.run = now
  if s.tail > (tonumber(string.match(s.lives, '(%d+)=%w+,$')) or 0) then
    s.lives = s.lives .. string.format('%.0f=%s,', s.tail, s.life)
  end
  s.life = ASKED.life
end

-- Events: each is held by one stream of the chain of forks.

local function holder(s, number)
  local last = s.tail
  while number <= s.base do
    last = math.min(last, s.base)
    s = load(s.forked_from)
  end
  return s, last
end

local function event(s, number)
  local found = redis.call('XRANGE', key('events', holder(s, number).path), id(number), id(number))[1]
  return found and {type = found[2][2], data = found[2][4], at = tonumber(found[2][6]), start = tonumber(found[2][8])}
end

local function add(s, type, data)
  s.tail = s.tail + 1
  redis.call('XADD', key('events', s.path), id(s.tail), 't', type, 'd', data,
    'a', string.format('%.0f', s.at), 's', string.format('%.0f', s.bytes))
  s.bytes = s.bytes + #data
end

local function add_all(s)
  s.at = math.max(NOW, s.at) -- never back, whatever the clock does: times are searched like numbers
  for i = 3, #ARGV, 2 do add(s, ARGV[i], ARGV[i + 1]) end
end

-- The first number for which `holds`, which does so from there on; last + 1 when for none. Quick near `first`.
local function search(first, last, holds)
  local low, step = first, 1
  while low <= last and not holds(math.min(low + step - 1, last)) do low, step = low + step, step * 2 end
  local high = math.min(low + step - 1, last + 1)
  while low < high do
    local middle = math.floor((low + high) / 2)
    if holds(middle) then high = middle else low = middle + 1 end
  end
  return math.min(low, last + 1)
end

-- Remember where the oldest event lies, so that most appends need not look at it.
local function oldest(s, first)
  if s.oldest == first or first > s.tail then return end
  local found = event(s, first)
  s.oldest, s.oldest_at, s.oldest_start = first, found.at, found.start
end

-- The number of the first event that retention keeps now; the newest stays whatever its size.
local function first_kept(s)
  local first = s.first
  if s.keep_events > 0 then first = math.max(first, s.tail - s.keep_events + 1) end
  if s.keep_bytes > 0 and first < s.tail then
    oldest(s, first)
    if s.bytes - s.oldest_start > s.keep_bytes then
      first = search(first, s.tail - 1, function(n) return s.bytes - event(s, n).start <= s.keep_bytes end)
    end
  end
  if s.keep_s > 0 and first <= s.tail then
    local from = NOW - s.keep_s * 1000000
    oldest(s, first)
    if s.oldest_at < from then first = search(first, s.tail, function(n) return event(s, n).at >= from end) end
  end
  return first
end

-- Drop what retention does not keep, and the keys whose events are no longer whole. What forks inherited stays.
local function retain(s)
  s.first = first_kept(s)
  if s.keep_bytes > 0 or s.keep_s > 0 then oldest(s, s.first) end
  if s.refs == 0 and s.first > s.base + 1 then
    redis.call('XTRIM', key('events', s.path), 'MINID', id(s.first))
  end
  local before = string.format('(%.0f', s.first)
  local gone = redis.call('ZRANGEBYSCORE', key('keyed', s.path), '-inf', before, 'LIMIT', 0, 1000)
  while #gone > 0 do
    redis.call('HDEL', key('keys', s.path), unpack(gone))
    redis.call('ZREM', key('keyed', s.path), unpack(gone))
    gone = redis.call('ZRANGEBYSCORE', key('keyed', s.path), '-inf', before, 'LIMIT', 0, 1000)
  end
end

local function state(s, created)
  return {
    'ok', s.lives, s.life, s.tail, s.closed, s.tail - first_kept(s) + 1, created or 0, s.content_type,
    s.ttl_s or '', s.expires_at and string.format('%.17g', s.expires_at) or '', s.forked_from, s.fork_number,
    s.fork_sub_offset, s.keep_events, s.keep_bytes, string.format('%.17g', s.keep_s),
  }
end
