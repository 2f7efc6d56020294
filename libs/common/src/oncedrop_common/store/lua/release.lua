-- release: closes a claim that sent nothing, so that the file can be given back (then restore).
-- With several downloads the file never moved: the download goes back at once.
-- KEYS  1 record
-- ARGV  1 claim_hash   2 request_id
-- Returns  RELEASED | SHARED | CLOSED | GONE | UNKNOWN
-- Keeps  a claim that another request may be serving is left alone
local state = get('state')
if not state then return answer('UNKNOWN') end
if state == 'gone' then return answer('GONE') end
local mine = claim_get(ARGV[1])
if not mine then return answer('CLOSED') end
if mine.closed then return answer(mine.unsent and 'RELEASED' or 'CLOSED') end
if mine.shared or mine.opener ~= ARGV[2] or mine.ranges ~= '' then return answer('SHARED') end
if number('max_downloads') > 1 then
  claim_close_for_good(ARGV[1])
  give_back_download()
else
  mine.closed = '1'
  mine.unsent = '1'
  claim_set(ARGV[1], mine)
end
changed()
return answer('RELEASED')
