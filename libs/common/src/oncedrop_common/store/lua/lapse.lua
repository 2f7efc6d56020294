-- lapse: closes a claim whose lease is over: -> ready, gone(interrupted) or gone(delivered).
-- KEYS  1 record
-- ARGV  1 claim_hash   2 revision   3 place   4 at_once
-- Returns  READY | RESTORE | INTERRUPTED | COUNTED | DELIVERED | LIVE | CHANGED | GONE | UNKNOWN
-- Keeps  the claim can never be renewed or used again; a file still in blobs/ means nothing was sent
local state = get('state')
if not state then return answer('UNKNOWN') end
if state == 'gone' then return answer('GONE') end
if ARGV[2] ~= '' and get('revision') ~= ARGV[2] then return answer('CHANGED') end
local mine = claim_get(ARGV[1])
if not mine then return answer('CHANGED') end
if not mine.closed and tonumber(mine.deadline) > now and ARGV[4] ~= '1' then return answer('LIVE') end

if mine.complete or covers(mine.ranges, number('size')) and number('size') > 0 then
  if end_delivered(ARGV[1]) then return answer('DELIVERED') end
  return answer('COUNTED')
end

local single = number('max_downloads') <= 1
if single and ARGV[3] == 'blobs' then
  claim_close_for_good(ARGV[1])
  give_back_download()
  changed()
  return answer('READY')
end
-- With several downloads the file never moves; who sends says so first, by renew_claim.
local unsent = mine.unsent or not (single or mine.sending or mine.rebuilt)
local restorable = unsent or (get('if_interrupted') == 'restore' and not mine.rebuilt)
if restorable and single then
  mine.closed = '1'
  claim_set(ARGV[1], mine)
  changed()
  return answer('RESTORE')
end
claim_close_for_good(ARGV[1])
if restorable then
  give_back_download()
  changed()
  return answer('READY')
end
if used_up() then
  bury('interrupted')
  return answer('INTERRUPTED')
end
changed()
return answer('COUNTED')
