-- renew_upload: uploading -> uploading, with a fresh lease; makes a record that Redis forgot again.
-- KEYS  1 record
-- ARGV  1 owner_hash   2 lease_seconds   3 ttl_seconds   4 tombstone_seconds
-- Returns  RENEWED | COMMITTED | GONE
-- Keeps  an upload that makes progress is never abandoned
local state = get('state')
if state == 'gone' then return answer('GONE') end
if state == 'ready' or state == 'claimed' then return answer('COMMITTED') end
if not state then set('state', 'uploading', 'owner_hash', ARGV[1], 'created_ms', whole(now)) end
set('upload_deadline_ms', whole(now + ARGV[2] * 1000))
forget_at(now + (ARGV[2] + ARGV[3] + ARGV[4]) * 1000)
changed()
return answer('RENEWED')
