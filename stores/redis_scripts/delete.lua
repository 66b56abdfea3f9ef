-- Log.delete: path.
local s, stale = find(ASKED.path)
if stale then forget(stale) end
if not s then return {'none'} end
if s.gone then return {'gone'} end
forget(s)
return {'ok'}
