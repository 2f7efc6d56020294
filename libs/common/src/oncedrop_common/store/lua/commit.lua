-- commit: uploading -> ready, once the blob is in place; makes a record that Redis forgot again.
-- KEYS  1 record
-- ARGV  1 tombstone_seconds   2 expires_ms   3 max_downloads   4... metadata, field and value
-- Returns  COMMITTED | GONE
-- Keeps  what was given up meanwhile stays gone
local state = get('state')
if state == 'gone' then return answer('GONE') end
if state == 'ready' or state == 'claimed' then return answer('COMMITTED') end
set(unpack(ARGV, 4))
set('state', 'ready', 'downloads_left', ARGV[3])
remove('upload_deadline_ms')
forget_at(ARGV[2] + ARGV[1] * 1000)
changed()
return answer('COMMITTED')
