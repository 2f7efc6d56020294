-- expire: ready -> gone(expired), when its time is over; a live claim may finish.
-- KEYS  1 record
-- ARGV
-- Returns  EXPIRED | FINISHING | LIVE | GONE | UNKNOWN
-- Keeps  no claim begins after the expiry
local state = get('state')
if not state then return answer('UNKNOWN') end
if state == 'gone' then return answer('GONE') end
if state ~= 'ready' or number('expires_ms') > now then return answer('LIVE') end
if #claim_hashes() == 0 then
  bury('expired')
  return answer('EXPIRED')
end
set('state', 'claimed', 'downloads_left', '0')
changed()
return answer('FINISHING')
