-- Log.append and Log.close: path, create, keep (the retention that it has), content_type, producer, seq, key, digest,
-- close, life; the events follow.

local function below(a, b) -- as bytes: Lua's own < asks the locale
  for i = 1, math.min(#a, #b) do
    local x, y = string.byte(a, i), string.byte(b, i)
    if x ~= y then return x < y end
  end
  return #a < #b
end

local function words(kind, name)
  local text = redis.call('HGET', key(kind, ASKED.path), name)
  local one, two, three = string.match(text or '', '^(%S+) (%S+) (%S+)$')
  return one and {tonumber(one), tonumber(two), three}
end

local function of_producer(mark, producer)
  local epoch, expected = mark and mark[1], 0
  if epoch and producer.epoch < epoch then return {'stale', string.format('%.0f', epoch)} end
  if epoch and producer.epoch > epoch and producer.seq > 0 then return {'epoch'} end
  if epoch == producer.epoch then expected = mark[2] + 1 end
  if producer.seq ~= expected then return {'gap', string.format('%.0f', expected)} end
end

local function refused(s, mark, keyed)
  local close_only = ASKED.close and #ARGV == 2 and not ASKED.producer
  if s.closed == 1 and not close_only then return {'closed', s.lives, s.life, s.tail} end
  if ASKED.content_type ~= '' and media_type(ASKED.content_type) ~= media_type(s.content_type) then
    return {'type', s.content_type}
  end
  local wrong = ASKED.producer and of_producer(mark, ASKED.producer)
  if wrong then return wrong end
  if ASKED.seq ~= '' and s.seq and not below(s.seq, ASKED.seq) then return {'regression'} end
  return keyed and {'key'}
end

local function remember(s, last)
  local producer = ASKED.producer
  if producer then
    local mark = string.format('%.0f %.0f %.0f', producer.epoch, producer.seq, last)
    redis.call('HSET', key('producers', s.path), producer.id, mark)
  end
  if ASKED.key ~= '' then
    redis.call('HSET', key('keys', s.path), ASKED.key, string.format('%.0f %.0f %s', s.tail + 1, last, ASKED.digest))
    redis.call('ZADD', key('keyed', s.path), s.tail + 1, ASKED.key)
  end
  if ASKED.seq ~= '' then s.seq = ASKED.seq end
end

local s, stale = find(ASKED.path)
if s and s.gone then return {'gone'} end
if not s and not ASKED.create then return {'none'} end
local mark = s and ASKED.producer and words('producers', ASKED.producer.id)
local keyed = s and ASKED.key ~= '' and words('keys', ASKED.key)
local repeated = mark and ASKED.producer.epoch == mark[1] and ASKED.producer.seq <= mark[2] and tonumber(mark[3])
  or keyed and keyed[3] == ASKED.digest and keyed[2]
local function answer(number, duplicate, seq)
  return {'ok', s.lives, s.life, s.tail, s.closed, number, duplicate, seq and string.format('%.0f', seq) or ''}
end
if repeated then return answer(repeated, 1, mark and mark[2]) end

local new = not s
if new then
  local refusal
  s, refusal = draft(ASKED.path, ASKED.create)
  if not s then return refusal end
end
local refusal = refused(s, mark, keyed)
if refusal then return refusal end
if stale then forget(stale) end
if new then begin(s) else renew(s) end
if ASKED.create and not ASKED.keep then
  for _, name in ipairs({'keep_events', 'keep_bytes', 'keep_s'}) do s[name] = ASKED.create[name] end
end
s.touched = NOW
remember(s, s.tail + (#ARGV - 2) / 2)
add_all(s)
if ASKED.close then s.closed = 1 end
retain(s)
save(s)
publish(s)
return answer(s.tail, 0, ASKED.producer and ASKED.producer.seq)
