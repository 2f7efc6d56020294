-- restore: claimed -> ready, after a closed claim's file was renamed back to blobs/.
-- KEYS  1 record
-- ARGV  1 claim_hash   2 revision
-- Returns  READY | CHANGED | GONE | UNKNOWN
-- Keeps  only a closed claim is undone; if anything of it was sent it can never be used again
local state = get('state')
if not state then return answer('UNKNOWN') end
if state == 'gone' then return answer('GONE') end
local mine = claim_get(ARGV[1])
if get('revision') ~= ARGV[2] or not mine or not mine.closed then return answer('CHANGED') end
if mine.unsent then remove('claim:' .. ARGV[1]) else claim_close_for_good(ARGV[1]) end
give_back_download()
changed()
return answer('READY')
