-- read: the record as it is; changes nothing.
-- KEYS  1 record
-- ARGV
-- Returns  FOUND | UNKNOWN
-- Keeps  record and clock are of the same instant
if redis.call('EXISTS', record) == 0 then return {'UNKNOWN', whole(now), {}} end
return answer('FOUND')
