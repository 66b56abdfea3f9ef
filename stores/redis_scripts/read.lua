-- Log.read: path, offset, limit, limit_bytes.
local s = find(ASKED.path)
if not s then return {'none'} end
if s.gone then return {'gone'} end
if ASKED.offset and not known(s, ASKED.offset) then return {'unknown'} end

-- Without a sliding end once a second is enough. Where Redis takes no write (OOM, a replica) it can still be read.
if s.ttl_s or NOW - s.touched >= 1000000 then
  s.touched = NOW
  if type(redis.pcall('HSET', key('stream', s.path), 'touched', NOW)) == 'number' then lease(s) end
end

local after = ASKED.offset and ASKED.offset.number or 0
local first = first_kept(s)
local reply = {'ok', s.lives, s.life, s.tail, s.closed, s.tail - first + 1, math.max(first - 1 - after, 0)}
local number, left, bytes = math.max(after + 1, first), ASKED.limit, ASKED.limit_bytes
-- As many at a time as will fit if they are like the others: events may be of any size, and each one read is copied.
local fit = math.floor(bytes / math.max(s.bytes / math.max(s.tail, 1), 1)) + 1
while number <= s.tail and left > 0 do
  local held, last = holder(s, number)
  local count = math.max(math.min(left, fit, 256), 1)
  local found = redis.call('XRANGE', key('events', held.path), id(number), id(last), 'COUNT', count)
  if #found == 0 then return {'lost'} end
  for _, entry in ipairs(found) do
    -- Evicted, or deleted by somebody's hand: never a silent gap.
    if tonumber(string.match(entry[1], '^%d+')) ~= number then return {'lost'} end
    bytes = bytes - #entry[2][4]
    if bytes < 0 and #reply > 7 then return reply end
    reply[#reply + 1], reply[#reply + 2], reply[#reply + 3] = number, entry[2][2], entry[2][4]
    number = number + 1
  end
  left = left - #found
end
return reply
