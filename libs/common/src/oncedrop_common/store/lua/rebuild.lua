-- rebuild: nothing -> ready, or claimed by the hash the file bears: made again from the blob's header.
-- KEYS  1 record
-- ARGV  1 claim_hash   2 lease_seconds   3 tombstone_seconds   4 expires_ms   5 max_downloads   6... metadata, field and value
-- Returns  REBUILT | EXPIRED | EXISTS
-- Keeps  whatever record exists wins, a tombstone too; an expired blob brings nothing back
if redis.call('EXISTS', record) == 1 then return answer('EXISTS') end
local expires = tonumber(ARGV[4])
if ARGV[1] == '' and expires <= now then return {'EXPIRED', whole(now), {}} end
set(unpack(ARGV, 6))
set('state', 'ready', 'downloads_left', ARGV[5])
if ARGV[1] ~= '' then
  local claim = claim_new(ARGV[2])
  claim.rebuilt = '1'
  claim_set(ARGV[1], claim)
  set('state', 'claimed', 'downloads_left', '0', 'claimed_ms', whole(now))
end
forget_at(math.max(expires, now) + ARGV[3] * 1000)
changed()
return answer('REBUILT')
