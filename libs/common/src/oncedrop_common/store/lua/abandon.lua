-- abandon: uploading -> gone(abandoned), when its lease has lapsed or its uploader gives up.
-- KEYS  1 record
-- ARGV  1 given_up
-- Returns  ABANDONED | LIVE | COMMITTED | GONE | UNKNOWN
-- Keeps  a commit that comes later finds the drop gone
local state = get('state')
if not state then return answer('UNKNOWN') end
if state == 'gone' then return answer('GONE') end
if state ~= 'uploading' then return answer('COMMITTED') end
if ARGV[1] ~= '1' and number('upload_deadline_ms') > now then return answer('LIVE') end
bury('abandoned')
return answer('ABANDONED')
