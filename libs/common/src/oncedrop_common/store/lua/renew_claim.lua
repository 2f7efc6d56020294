-- renew_claim: claimed -> claimed; notes that and what was sent and, on progress, renews the lease.
-- KEYS  1 record
-- ARGV  1 claim_hash   2 lease_seconds   3 claim_max_seconds   4 linger_seconds   5 progressed   6 ranges
-- Returns  RENEWED | CLOSED | GONE | UNKNOWN
-- Keeps  a lapsed claim is never renewed
local state = get('state')
if not state then return answer('UNKNOWN') end
if state == 'gone' then return answer('GONE') end
local mine = claim_get(ARGV[1])
if not mine or mine.closed or tonumber(mine.deadline) <= now then return answer('CLOSED') end
local bytes
mine.ranges, bytes = union(mine.ranges, ARGV[6])
note_progress(bytes)
mine.sending = '1'
if ARGV[5] == '1' then
  local lease = mine.complete and ARGV[4] or ARGV[2]
  local deadline = math.min(now + lease * 1000, mine.started + ARGV[3] * 1000)
  mine.deadline = whole(math.max(deadline, tonumber(mine.deadline)))
end
claim_set(ARGV[1], mine)
changed()
return answer('RENEWED')
