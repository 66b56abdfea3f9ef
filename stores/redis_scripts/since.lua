-- Log.since: path, time (µs).
local s = find(ASKED.path)
if not s then return {'none'} end
if s.gone then return {'gone'} end
local first = first_kept(s)
local number = search(first, s.tail, function(n) return event(s, n).at >= ASKED.time end)
-- Before the first one that is kept nobody knows when it was: all of it may be what is asked for.
return {'ok', s.lives, s.life, s.tail, number > first and number - 1 or 0}
