-- Log.paths: a piece of the index. prefix, from, limit. Answers where the next piece begins, and the paths.
local found = redis.call('ZRANGEBYLEX', PREFIX .. 'paths', ASKED.from, '(' .. ASKED.prefix .. '\255', 'LIMIT', 0, ASKED.limit)
local reply = {#found == ASKED.limit and found[#found] or ''}
for _, path in ipairs(found) do
  local s = redis.call('HMGET', key('stream', path), 'touched', 'ttl_s', 'expires_at')
  local touched, ttl_s, expires_at = tonumber(s[1] or ''), tonumber(s[2] or ''), tonumber(s[3] or '')
  if touched and not expired({touched = touched, ttl_s = ttl_s, expires_at = expires_at}) then reply[#reply + 1] = path end
end
return reply
