-- lose: ready or claimed -> gone(lost), when no file of the drop is anywhere in the volume.
-- KEYS  1 record
-- ARGV  1 revision
-- Returns  LOST | CHANGED | GONE | UNKNOWN
-- Keeps  a record that changed since the volume was looked at is left alone
local state = get('state')
if not state then return answer('UNKNOWN') end
if state == 'gone' then return answer('GONE') end
if state == 'uploading' or get('revision') ~= ARGV[1] then return answer('CHANGED') end
bury('lost')
return answer('LOST')
