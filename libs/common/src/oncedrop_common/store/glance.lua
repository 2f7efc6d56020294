-- glance: a few fields of many records in one answer; changes nothing. No arrow, so not in lua/.
-- KEYS  1... records; in a cluster they lie on several nodes, so there plain HMGETs do the same
-- Returns  for each: state, size, expires_ms, upload_deadline_ms, claimed_ms; all false where
--          there is no record, an empty list where the key is of another type
local rows = {}
for i, record in ipairs(KEYS) do
  local row = redis.pcall('HMGET', record, 'state', 'size', 'expires_ms', 'upload_deadline_ms',
                          'claimed_ms')
  rows[i] = row.err and {} or row
end
return rows
