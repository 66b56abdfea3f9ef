-- Log.state: path.
local s = find(ASKED.path)
if not s then return {'none'} end
return s.gone and {'gone'} or state(s)
