-- delete: any living state -> gone(deleted), at the word of the owner or the operator.
-- KEYS  1 record
-- ARGV
-- Returns  DELETED | GONE | UNKNOWN
-- Keeps  running streams find the drop gone at their next renewal
local state = get('state')
if not state then return answer('UNKNOWN') end
if state == 'gone' then return answer('GONE') end
bury('deleted')
return answer('DELETED')
