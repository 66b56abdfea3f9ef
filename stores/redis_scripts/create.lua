-- Log.create: path, config, closed, life; the events follow.

local function same(s, config)
  local lifetime = s.ttl_s == config.ttl_s and s.expires_at == config.expires_at
  local none = s.inherits == 1 and not config.ttl_s and not config.expires_at
  local place = not config.fork and (config.forked_from == '' or s.at_tail == 1)
  if config.fork then
    place = config.fork.number == s.fork_number
      and (config.fork.number == 0 or life_of(s, config.fork.number) == config.fork.life)
  end
  local inherited = config.content_type == '' and s.forked_from ~= ''
  return (inherited or media_type(s.content_type) == media_type(config.content_type)) and (lifetime or none)
    and s.forked_from == config.forked_from and place and s.fork_sub_offset == config.fork_sub_offset
end

local s, stale = find(ASKED.path)
if s then
  if s.gone then return {'deleted'} end
  if not same(s, ASKED.config) or s.closed ~= ASKED.closed then return {'exists'} end
  return state(s)
end
local refusal
s, refusal = draft(ASKED.path, ASKED.config)
if not s then return refusal end
if stale then forget(stale) end
begin(s)
add_all(s)
s.closed = ASKED.closed
retain(s)
save(s)
publish(s)
return state(s, 1)
