-- adopt: -> claimed, by the hash under which the file was found in claimed/: the volume remembers
-- what Redis forgot.
-- KEYS  1 record
-- ARGV  1 claim_hash   2 revision   3 lease_seconds
-- Returns  ADOPTED | YOURS | LAPSED | CHANGED | GONE | UNKNOWN
-- Keeps  claims that the volume contradicts are closed
local state = get('state')
if not state then return answer('UNKNOWN') end
if state == 'gone' then return answer('GONE') end
if get('lapsed:' .. ARGV[1]) then return answer('LAPSED') end
if claim_get(ARGV[1]) then return answer('YOURS') end
if state == 'uploading' or number('max_downloads') > 1 or get('revision') ~= ARGV[2] then
  return answer('CHANGED')
end
for _, hash in ipairs(claim_hashes()) do claim_close_for_good(hash) end
local claim = claim_new(ARGV[3])
claim.rebuilt = '1'
claim_set(ARGV[1], claim)
set('state', 'claimed', 'downloads_left', '0', 'claimed_ms', whole(now))
changed()
return answer('ADOPTED')
