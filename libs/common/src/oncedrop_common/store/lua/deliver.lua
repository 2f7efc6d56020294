-- deliver: claimed -> gone(delivered), when every byte was acknowledged and the linger time is over.
-- KEYS  1 record
-- ARGV  1 claim_hash   2 linger_seconds   3 ranges
-- Returns  DELIVERED | COUNTED | LINGERING | PARTIAL | CLOSED | GONE | UNKNOWN
-- Keeps  with several downloads left the drop stays (COUNTED)
local state = get('state')
if not state then return answer('UNKNOWN') end
if state == 'gone' then return answer(get('reason') == 'delivered' and 'DELIVERED' or 'GONE') end
local mine = claim_get(ARGV[1])
if not mine or mine.closed then return answer('CLOSED') end
local bytes
mine.ranges, bytes = union(mine.ranges, ARGV[3])
note_progress(bytes)
mine.sending = '1'
if not covers(mine.ranges, number('size')) then
  claim_set(ARGV[1], mine)
  changed()
  return answer('PARTIAL')
end
if not mine.complete then
  mine.complete = '1'
  mine.deadline = whole(now + ARGV[2] * 1000)
end
if tonumber(mine.deadline) > now then
  claim_set(ARGV[1], mine)
  changed()
  return answer('LINGERING')
end
if end_delivered(ARGV[1]) then return answer('DELIVERED') end
return answer('COUNTED')
