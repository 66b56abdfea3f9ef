-- Log.expire: a piece of the index. prefix, untouched (µs), from, limit. Answers where the next begins, and how many.
local found = redis.call('ZRANGEBYLEX', PREFIX .. 'paths', ASKED.from, '+', 'LIMIT', 0, ASKED.limit)
local count = 0
for _, path in ipairs(found) do
  local s = load(path)
  local below = string.sub(path, 1, #ASKED.prefix) == ASKED.prefix
  if not s then -- freed by Redis itself when its time came
    redis.call('ZREM', PREFIX .. 'paths', path)
    count = count + 1
  elseif expired(s) or (ASKED.untouched and below and s.touched <= NOW - ASKED.untouched) then
    forget(s)
    count = count + 1
  elseif s.keep_s > 0 then
    retain(s)
    save(s)
  end
end
return {#found == ASKED.limit and found[#found] or '', count}
