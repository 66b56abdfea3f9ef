-- Making a stream: what `create` and the first `append` of a stream share.

local function of_config(path, config)
  return {
    path = path, life = ASKED.life, lives = '', run = run(), tail = 0, first = 1, base = 0, bytes = 0, at = NOW,
    closed = 0, deleted = 0, refs = 0, touched = NOW, content_type = config.content_type, ttl_s = config.ttl_s,
    expires_at = config.expires_at, forked_from = config.forked_from, fork_number = 0, inherits = 0, at_tail = 0,
    fork_sub_offset = config.fork_sub_offset, keep_events = config.keep_events, keep_bytes = config.keep_bytes,
    keep_s = config.keep_s,
  }
end

local function lives_upto(source, base)
  local lives, before = '', 0
  for upto, life in string.gmatch(source.lives, '(%d+)=(%w+),') do
    if before < base then lives = lives .. string.format('%.0f=%s,', math.min(tonumber(upto), base), life) end
    before = tonumber(upto)
  end
  if before < base then lives = lives .. string.format('%.0f=%s,', base, source.life) end
  return lives
end

-- The number of the last event that a fork shares with its source, and the part that it takes of the next one.
local function inherited(config, source, number)
  local more = config.fork_sub_offset
  if more == 0 then return number end
  if media_type(source.content_type) == 'application/json' then
    return number + more <= source.tail and number + more or nil
  end
  local following = number < source.tail and number + 1 >= first_kept(source) and event(source, number + 1)
  if not following or more > #following.data then return nil end
  if more == #following.data then return number + 1 end
  return number, {following.type, string.sub(following.data, 1, more)}
end

-- A stream that is not written yet; or nil and the answer that says why not.
local function draft(path, config)
  local s = of_config(path, config)
  if config.forked_from == '' then return s end
  local source = find(config.forked_from)
  if not source then return nil, {'nosource'} end
  if source.gone then return nil, {'gone'} end
  if not s.ttl_s and not s.expires_at then s.ttl_s, s.expires_at, s.inherits = source.ttl_s, source.expires_at, 1 end
  s.fork_number, s.at_tail = source.tail, 1
  if config.fork then
    if config.fork.number > 0 and not known(source, config.fork) then return nil, {'fork'} end
    s.fork_number, s.at_tail = config.fork.number, 0
  end
  if config.content_type == '' then
    s.content_type = source.content_type
  elseif media_type(config.content_type) ~= media_type(source.content_type) then
    return nil, {'type', source.content_type}
  end
  s.base, s.part = inherited(config, source, s.fork_number)
  if not s.base then return nil, {'fork'} end
  local following = s.base < source.tail and event(source, s.base + 1)
  s.tail, s.first, s.at = s.base, math.min(first_kept(source), s.base + 1), source.at
  s.bytes = s.base == source.tail and source.bytes or following and following.start or 0
  s.lives = lives_upto(source, s.base)
  return s
end

-- Write what a new stream needs around it.
local function begin(s)
  redis.call('ZADD', PREFIX .. 'paths', 0, s.path)
  if s.forked_from == '' then return end
  redis.call('HINCRBY', key('stream', s.forked_from), 'refs', 1)
  for _, kind in ipairs(KINDS) do redis.call('PERSIST', key(kind, s.forked_from)) end
  if s.part then
    s.at = math.max(NOW, s.at)
    add(s, s.part[1], s.part[2])
  end
end
