-- restore: claimed -> ready, after a closed claim's file was renamed back to blobs/.
-- KEYS  1 record
-- ARGV  1 claim_hash   2 revision
-- Returns  READY | CHANGED | GONE | UNKNOWN
-- Keeps  only a closed claim is undone, and its id never used again: whoever began to rename the
--        file back may do it late, and must not move a file that is being served
local state = get('state')
if not state then return answer('UNKNOWN') end
if state == 'gone' then return answer('GONE') end
local mine = claim_get(ARGV[1])
if get('revision') ~= ARGV[2] or not mine or not mine.closed then return answer('CHANGED') end
claim_close_for_good(ARGV[1])
give_back_download()
changed()
return answer('READY')
