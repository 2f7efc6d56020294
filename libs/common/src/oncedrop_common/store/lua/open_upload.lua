-- open_upload: nothing -> uploading.
-- KEYS  1 record
-- ARGV  1 owner_hash   2 lease_seconds   3 ttl_seconds   4 tombstone_seconds
-- Returns  OPENED | EXISTS
-- Keeps  the record is there before any file is
if redis.call('EXISTS', record) == 1 then
  if get('state') == 'uploading' and get('owner_hash') == ARGV[1] then return answer('OPENED') end
  return answer('EXISTS')
end
set('state', 'uploading', 'revision', '1', 'owner_hash', ARGV[1], 'created_ms', whole(now),
    'upload_deadline_ms', whole(now + ARGV[2] * 1000))
forget_at(now + (ARGV[2] + ARGV[3] + ARGV[4]) * 1000)
return answer('OPENED')
